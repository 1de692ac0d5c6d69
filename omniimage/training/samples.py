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
from omniimage.evaluation.held_out import Examples, candidates, of_drawn_size, read_examples
from omniimage.evaluation.sheets import sheet
from omniimage.files import write_whole
from omniimage.systems.system import System
from omniimage.training.state import TrainState, trained_parts

EXAMPLES = 4  # of each split


class SampleSheets:
  """Writes PNG sheets: the true image, and what the system's parts can show of it once they have been trained.

  Records are read for the first sheet, and only by the process that writes it. Those that cannot be drawn are passed
  over for others; without any there are no sheets, and a warning says so once.
  """

  def __init__(self, system: System, text_tokenizer: TextTokenizer, sources: Sequence[Source], folder: Path):
    """`sources`: of the train and the test split."""
    self._system, self._settings, self._folder, self._text_tokenizer = system, system.settings, folder, text_tokenizer
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
      self._generator = self._system.generator(params, self._text_tokenizer)
    else:
      self._generator.load(params)
    s = self._settings
    stages = (s.stages[name] for name in s.schedule)
    trained = trained_parts(((stage.rates, stage.steps) for stage in stages), int(state.step))
    columns = {"true": images, **self._system.columns(self._generator, trained, prompts, images, s.seed)}
    png = io.BytesIO()
    sheet(columns, captions).save(png, "PNG")
    write_whole(self._folder / f"{name}.png", png.getvalue())

  @functools.cached_property
  def _examples(self) -> dict[str, Examples] | None:
    """Some of each split that has any, by what they are to the run; None if nothing can be drawn."""
    found, seed = {}, self._settings.seed
    for source, kind in zip(self._sources, ("trained", "unseen")):
      records = candidates(of_drawn_size(source, self._settings), EXAMPLES, seed)
      with contextlib.suppress(UserError):
        found[kind] = read_examples(source, records, EXAMPLES, seed, self._settings, self._text_tokenizer)
    if not found:
      logging.warning("no sample sheets are drawn: no record that was tried asks for an image in words")
    return found or None
