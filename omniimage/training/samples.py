"""Sample sheets: what the run can draw so far, of some records it has seen and some it has not."""

import contextlib
import functools
import hashlib
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from omniimage.data.sources.source import Source
from omniimage.data.text import TextTokenizer
from omniimage.distributed.agree import from_each
from omniimage.distributed.spread import Spread
from omniimage.errors import UserError
from omniimage.evaluation.held_out import Examples, candidates, of_drawn_size, read_examples
from omniimage.evaluation.sheets import sheet
from omniimage.files import write_whole
from omniimage.models.omni import Params
from omniimage.sampling.weights import weights_as
from omniimage.systems.system import System
from omniimage.training.state import TrainState, trained_parts

EXAMPLES = 4  # of each split
COPIES = 3  # room for the parameters as they are stored, as they are drawn with, and for what drawing computes


class SampleSheets:
  """Writes PNG sheets: the true image, and what the system's parts can show of it once they have been trained.

  Records are read for the first sheet. Those that cannot be drawn are passed over for others; without any there are no
  sheets, and a warning says so once. All devices of the run draw, each some of the rows, with all of the parameters,
  which are gathered for a sheet and let go of after it. Where there is no room for that, there are no sheets.
  """

  def __init__(
    self,
    system: System,
    text_tokenizer: TextTokenizer,
    sources: Sequence[Source],
    folder: Path,
    devices: Sequence[jax.Device] = (),
  ):
    """`sources`: of the train and the test split; `devices`: of all processes, in the order of the run's mesh."""
    self._system, self._settings, self._folder, self._text_tokenizer = system, system.settings, folder, text_tokenizer
    self._sources, self._generator = sources, None
    self._spread = Spread(tuple(devices)) if len(devices) > 1 else None

  def write(self, state: TrainState, name: str):
    """Draws `samples/NAME.png` with the averaged parameters. All processes call it, the first one writes."""
    if self._examples is None or not self._has_room(state.averaged):
      return
    prompts = [caption for own in self._examples.values() for caption in own.captions]
    captions = [f"{caption} ({kind})" for kind, own in self._examples.items() for caption in own.captions]
    images = np.concatenate([own.images for own in self._examples.values()])
    params = self._whole(state.averaged) if self._spread else jax.device_get(state.averaged)
    if self._generator is None:
      self._generator = self._system.generator(params, self._text_tokenizer, self._spread)
    else:
      self._generator.load(params)
    s = self._settings
    stages = (s.stages[name] for name in s.schedule)
    trained = trained_parts(((stage.rates, stage.steps) for stage in stages), int(state.step))
    columns = {"true": images, **self._system.columns(self._generator, trained, prompts, images, s.seed)}
    if self._spread and self._generator is not None:
      self._generator.params = None  # training needs the room
    if jax.process_index() > 0:
      return
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
    if len(set(from_each(_digest(found)))) > 1:  # each would draw other prompts, and wait for the others for ever
      logging.warning("no sample sheets are drawn: the processes read different records")
      return None
    return found or None

  @functools.cached_property
  def _whole(self) -> Callable[[Params], Params]:
    """Parameters gathered on every device, their matrices in the type that they are used in."""
    as_used = functools.partial(weights_as, dtype=self._settings.compute_dtype)
    return jax.jit(as_used, out_shardings=self._spread.whole)

  def _has_room(self, params: Params) -> bool:
    """Whether every device has the memory to draw with all parameters, where devices say how much they have."""
    if not self._spread:
      return True
    bytes_each = jnp.dtype(self._settings.compute_dtype).itemsize
    needed = COPIES * bytes_each * sum(leaf.size for leaf in jax.tree.leaves(params))
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    free = min(own.get("bytes_limit", math.inf) - own.get("bytes_in_use", 0) for own in stats)
    if "False" not in from_each(str(needed < free)):
      return True
    logging.log_first_n(
      logging.WARNING, "no sample sheets are drawn: with all parameters that takes %.1f GB of each device, which has "
      "%.1f GB left; draw with launch.sample from a checkpoint", 1, needed / 1e9, free / 1e9,
    )  # fmt: skip
    return False


def _digest(examples: dict[str, Examples]) -> str:
  """Of what is drawn, to be compared between processes."""
  found = hashlib.sha256()
  for kind, own in examples.items():
    found.update(repr((kind, own.captions)).encode() + own.images.tobytes())
  return found.hexdigest()
