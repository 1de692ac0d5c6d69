"""Draws a picture for each prompt that has none yet, over the devices of all processes.

Prompts are put into batches by the file alone: those that are padded to one length, in their order, so many at a time.
A device draws a batch at a time, by a program of one shape, and each picture has the key of its own seed. So which
device draws it, in which process, and what is drawn beside it makes no difference to a picture.

What is left is dealt out by process 0, which alone looks into the folder, batch by batch. Nothing is sent between
processes after that.
"""

import dataclasses
import functools
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.tree_util import keystr
from PIL import Image

from omniimage.distributed.agree import first_says, from_each
from omniimage.drawn.folder import Folder
from omniimage.drawn.prompts import Wanted, as_lines
from omniimage.errors import UserError
from omniimage.evaluation.sheets import to_uint8
from omniimage.models.omni import Params
from omniimage.sampling.drawing import Draws
from omniimage.settings import Settings
from omniimage.workdir import Run

WRITERS = 4  # threads that compress pictures, which takes longer than their drawing where these are large
Batch = list[Wanted]


def draw(
  generator: Draws,
  wanted: Sequence[Wanted],
  folder: Folder,
  about: dict[str, Any],
  batch: int,
  devices: int,
  scale: int = 1,
  progress: Callable[[int, int], None] = lambda done, of: None,
) -> int:
  """Draws what is missing, and returns how many pictures that were, of all processes, which call it alike. It ends when
  this process has drawn its share.

  Args:
    generator: over the devices of this process, so many.
    about: as `drawn_with` gives it.
    batch: pictures that a device draws at a time.
    scale: pixels of a picture are enlarged so much.
    progress: is told how many of this process's share are there, and of how many.

  UserError, before anything is compiled, if the folder is of something else or in use.
  """
  if len(set(from_each(hashlib.sha256(as_lines(wanted)).hexdigest()))) > 1:
    raise UserError("the processes read different prompts; give all of them the same file and --seed")
  places = functools.cache(generator.places)
  batches = in_batches(wanted, places, batch)
  left = first_says(lambda: _left(batches, folder.begin(wanted, about)))
  own = [
    (batches[number], {one.name for one in batches[number]} if missing is None else set(missing))
    for number, missing in left[jax.process_index() :: jax.process_count()]
  ]
  total, done = sum(len(missing) for _, missing in own), 0
  with ThreadPoolExecutor(WRITERS) as pool:
    for batches_drawn, images in _ahead(generator, list(_rounds(own, places, devices)), batch, devices):
      todo = [
        (one, images[place * batch + row])
        for place, (own_batch, missing) in enumerate(batches_drawn)
        for row, one in enumerate(own_batch)
        if one.name in missing
      ]
      list(pool.map(lambda pair: folder.write(pair[0].name, as_png(pair[1], scale)), todo))
      done += len(todo)
      progress(done, total)
  return sum(len(batches[number] if missing is None else missing) for number, missing in left)


def in_batches(wanted: Sequence[Wanted], places: Callable[[str], int], size: int) -> list[Batch]:
  """All of them in batches of at most `size` that are padded to one length, in their order."""
  of_length = defaultdict(list)
  for one in wanted:
    of_length[places(one.prompt)].append(one)
  return [own[i : i + size] for _, own in sorted(of_length.items()) for i in range(0, len(own), size)]


def drawn_with(run: Run, settings: Settings, dtype: str, scale: int) -> dict[str, Any]:
  """What a picture depends on beside prompt and seed, as `Folder.begin` takes it.

  Args:
    settings: of the run, with the sampling that is asked for.
    dtype: of the weights.
  """
  return {
    "checkpoint": f"step {run.step}, {fingerprint(run.params)}",
    "dtype": dtype,
    "size": list(settings.buckets[0].pixels),
    "scale": scale,
    "sampling": dataclasses.asdict(settings.sampling),
  }


def fingerprint(params: Params) -> str:
  """Of the parameters' values, whatever file they were read from."""
  found = hashlib.sha256()
  for path, leaf in jax.tree.leaves_with_path(params):
    array = np.ascontiguousarray(leaf)
    found.update(f"{keystr(path)} {array.dtype} {array.shape}".encode())
    found.update(array.reshape(-1).view(np.uint8))
  return found.hexdigest()[:16]


def as_png(image: np.ndarray, scale: int) -> bytes:
  png, picture = io.BytesIO(), Image.fromarray(to_uint8(image))
  size = (scale * picture.width, scale * picture.height)
  (picture if scale == 1 else picture.resize(size, Image.Resampling.NEAREST)).save(png, "PNG")
  return png.getvalue()


def _left(batches: Sequence[Batch], drawn: set[str]) -> list[tuple[int, list[str] | None]]:
  """Numbers of the batches that are not whole, and the names that they lack; None for all."""
  lacking = [[one.name for one in own if one.name not in drawn] for own in batches]
  return [(i, None if len(names) == len(batches[i]) else names) for i, names in enumerate(lacking) if names]


def _rounds(own: Sequence[tuple[Batch, set]], places: Callable[[str], int], devices: int) -> Iterator[list]:
  """Batches of one length, at most one a device."""
  of_length = defaultdict(list)
  for pair in own:
    of_length[places(pair[0][0].prompt)].append(pair)
  for pairs in of_length.values():
    for i in range(0, len(pairs), devices):
      yield pairs[i : i + devices]


def _ahead(generator: Draws, rounds: list[list], batch: int, devices: int) -> Iterator[tuple[list, np.ndarray]]:
  """Each round with its images (devices · batch, H, W, 3), while the next one is drawn."""
  before = None
  for own in rounds:
    rows = [row for one, _ in own for row in _filled(one, batch)]
    rows += rows[:batch] * (devices - len(own))
    drawing = generator.each([row.prompt for row in rows], [row.seed for row in rows])
    if before:
      yield before[0], np.asarray(before[1])
    before = own, drawing.images
  if before:
    yield before[0], np.asarray(before[1])


def _filled(own: Batch, size: int) -> Batch:
  return own + own[:1] * (size - len(own))
