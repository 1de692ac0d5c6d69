"""How full packed rows are, what finds no place, and what packing costs, for mixes of records.

  python -m benchmarks.packing [--rows=1024]

A block is packed once for some thousand steps' rows of one host; the milliseconds are those of the thread that packs.
"""

import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

from omniimage.data.packing import RowStream
from omniimage.data.record_stream import Chosen, RecordStream

ROWS = flags.DEFINE_integer("rows", 1024, "Of a block: data.packing_rows.", lower_bound=1)
BLOCKS = flags.DEFINE_integer("blocks", 32, "Packed for the figures.", lower_bound=1)

RECORDS = 200_000
LENGTH, IMAGES = 1024, 16  # tokens and image slots of a row
SMALL, LARGE = 64 + 4, 256 + 4  # tokens of an image with what opens and closes it

Needs = tuple[np.ndarray, np.ndarray]  # tokens and images of each record


def captioned(rng: np.random.Generator, image: int) -> Needs:
  return rng.integers(5, 81, RECORDS) + image + 1, np.ones(RECORDS, int)


def text_alone(rng: np.random.Generator) -> Needs:
  return rng.integers(10, 901, RECORDS), np.zeros(RECORDS, int)


def several_images(rng: np.random.Generator) -> Needs:
  images = rng.integers(2, 5, RECORDS)
  return rng.integers(10, 201, RECORDS) + SMALL * images + 1, images


def of_all_kinds(rng: np.random.Generator) -> Needs:
  kinds = [captioned(rng, SMALL), captioned(rng, LARGE), text_alone(rng), several_images(rng)]
  kind = rng.integers(len(kinds), size=RECORDS)
  tokens, images = (np.choose(kind, needs) for needs in zip(*kinds))
  return tokens, images


MIXES: dict[str, Callable[[np.random.Generator], Needs]] = {
  "a caption, 64 codes": lambda rng: captioned(rng, SMALL),
  "a caption, 256 codes": lambda rng: captioned(rng, LARGE),
  "text alone": text_alone,
  "several images": several_images,
  "of all kinds": of_all_kinds,
}


def main(argv: list[str]):
  rows, blocks = ROWS.value, BLOCKS.value
  print(f"rows of {LENGTH} tokens and {IMAGES} images, {rows} a block\n")
  print("| records | a block | fill | dropped | ms a block | s to open |\n| --- | --- | --- | --- | --- | --- |")
  for name, mix in MIXES.items():
    tokens, images = mix(np.random.default_rng(0))
    began = time.perf_counter()
    records = RecordStream((Chosen(0, RECORDS),), (1.0,), seed=0)
    capacity = {"rows": rows, "sequence_length": LENGTH, "images_per_row": IMAGES}
    stream = RowStream(tokens, images, records, **capacity, seed=0)
    opened = time.perf_counter()
    packed = [stream.block(index) for index in range(blocks)]
    milliseconds = (time.perf_counter() - opened) / blocks * 1e3
    fill, dropped = (float(np.mean([getattr(block, what) for block in packed])) for what in ("fill", "dropped"))
    print(
      f"| {name} | {stream.block_records} | {fill:.1%} | {dropped:.3%} | {milliseconds:.1f} | {opened - began:.2f} |"
    )


if __name__ == "__main__":
  app.run(main)
