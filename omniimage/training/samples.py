"""Sample sheets: what the run can draw so far, of some records it has seen and some it has not."""

import contextlib
import functools
import io
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import logging

from omniimage.data.sources.source import Source
from omniimage.data.text import TextTokenizer
from omniimage.errors import UserError
from omniimage.evaluation.held_out import Examples, candidates, read_examples
from omniimage.evaluation.sheets import sheet
from omniimage.files import write_whole
from omniimage.sampling.generate import Generator
from omniimage.settings import Settings
from omniimage.training.state import TrainState

EXAMPLES = 4  # of each split


class SampleSheets:
  """Writes PNG sheets: true image, the tokenizer's reconstruction, sampled tokens as the tokenizer renders them, and
  the diffusion decoder's picture; each column once its parts have been trained.

  Records are read for the first sheet, and only by the process that writes it. Those that cannot be drawn are passed
  over for others; without any there are no sheets, and a warning says so once.
  """

  def __init__(self, settings: Settings, text_tokenizer: TextTokenizer, sources: Sequence[Source], folder: Path):
    """`sources`: of the train and the test split."""
    self._settings, self._folder, self._text_tokenizer = settings, folder, text_tokenizer
    self._sources, self._generator = sources, None

  def write(self, state: TrainState, name: str):
    """Draws `samples/NAME.png` with the averaged parameters. Only the first process writes."""
    if jax.process_index() != 0 or jax.process_count() > 1 or self._examples is None:
      return
    prompts = [caption for own in self._examples.values() for caption in own.captions]
    captions = [f"{caption} ({kind})" for kind, own in self._examples.items() for caption in own.captions]
    images = np.concatenate([own.images for own in self._examples.values()])
    params = jax.device_get(state.averaged)
    if self._generator is None:
      self._generator = Generator(self._settings, params, self._text_tokenizer)
    else:
      self._generator.load(params)
    trained = self._settings.trained_parts(int(state.step))
    columns = {"true": images}
    if "tokenizer" in trained:
      columns["reconstruction"] = self._generator.reconstruct(images)
    if {"tokenizer", "prior"} <= trained:
      drawing = self._generator(prompts, self._settings.seed)
      columns["sampled tokens"] = drawing.rendering
      if "decoder" in trained:
        columns["painted"] = drawing.images
    png = io.BytesIO()
    sheet(columns, captions).save(png, "PNG")
    write_whole(self._folder / f"{name}.png", png.getvalue())

  @functools.cached_property
  def _examples(self) -> dict[str, Examples] | None:
    """Some of each split that has any, by what they are to the run; None if nothing can be drawn."""
    found, seed = {}, self._settings.seed
    for source, kind in zip(self._sources, ("trained", "unseen")):
      records = candidates(len(source), EXAMPLES, seed)
      with contextlib.suppress(UserError):
        found[kind] = read_examples(source, records, EXAMPLES, seed, self._settings, self._text_tokenizer)
    if not found:
      logging.warning("no sample sheets are drawn: no record that was tried asks for an image in words")
    return found or None
