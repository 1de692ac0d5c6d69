"""Sample sheets: what the run can draw so far, of some records it has seen and some it has not."""

from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from omniimage.data.sources import Source
from omniimage.data.text import TextTokenizer
from omniimage.evaluation.held_out import pick, prompt_and_target
from omniimage.evaluation.sheets import sheet
from omniimage.sampling.generate import Generator
from omniimage.settings import Settings
from omniimage.training.state import TrainState

EXAMPLES = 4  # of each split


class SampleSheets:
  """Writes PNG sheets: true image, the tokenizer's reconstruction, sampled tokens as the tokenizer renders them, and
  the diffusion decoder's picture; each column once its parts have been trained."""

  def __init__(self, settings: Settings, text_tokenizer: TextTokenizer, sources: Sequence[Source], folder: Path):
    self._settings, self._folder, self._text_tokenizer = settings, folder, text_tokenizer
    self._generator = None
    examples = [
      _example(source, int(i), settings.seed) for source in sources for i in pick(len(source), EXAMPLES, settings.seed)
    ]
    self._prompts = [prompt for prompt, _ in examples]
    self._captions = [f"{prompt} ({'trained' if i < EXAMPLES else 'unseen'})" for i, prompt in enumerate(self._prompts)]
    self._images = np.stack([image for _, image in examples])

  def write(self, state: TrainState, name: str):
    """Draws `samples/NAME.png` with the averaged parameters. Only the first process writes."""
    if jax.process_index() != 0 or jax.process_count() > 1:
      return
    params = jax.device_get(state.averaged)
    if self._generator is None:
      self._generator = Generator(self._settings, params, self._text_tokenizer)
    else:
      self._generator.load(params)
    trained = self._trained_parts(int(state.step))
    columns = {"true": self._images}
    if "tokenizer" in trained:
      columns["reconstruction"] = self._generator.reconstruct(self._images)
    if {"tokenizer", "prior"} <= trained:
      drawing = self._generator(self._prompts, self._settings.seed)
      columns["sampled tokens"] = drawing.rendering
      if "decoder" in trained:
        columns["painted"] = drawing.images
    sheet(columns, self._captions).save(self._folder / f"{name}.png")

  def _trained_parts(self, step: int) -> set[str]:
    """Parts that some update before `step` has moved."""
    moved, start = set(), 0
    for name in self._settings.schedule:
      if step > start:
        moved |= set(self._settings.stages[name].moves)
      start += self._settings.stages[name].steps
    return moved


def _example(source: Source, index: int, seed: int) -> tuple[str, np.ndarray]:
  """Prompt and image of a record. ValueError if it paints nothing."""
  example = prompt_and_target(source.record(index, np.random.default_rng((seed, index))))
  if example is None:
    raise ValueError(f"record {index} paints no image; a sample sheet needs one that does")
  return example
