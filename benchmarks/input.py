"""How fast pictures come to the model: ours against PyTorch's DataLoader and TFDS, and what a large set costs.

  python -m benchmarks.input --out=input.md          # needs pip install torch

Photographs of 640×480 pixels are made (smooth noise, JPEG of quality 90), prepared by `launch.prepare`, and brought to
256×256 pixels by each reader: decoded, resized so that the picture covers the square, its middle cropped. All have the
same number of threads or processes, and take turns, round by round; a figure is the median of the rounds.

Then a set of a million records: how long it takes to open and to the first batch, at its beginning and at batch 10,000,
and the memory of the process.
"""

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from absl import app, flags
from PIL import Image

from configs import images as configs
from omniimage.data.batches import Batches
from omniimage.data.sources import open_source
from omniimage.data.text import TextTokenizer
from omniimage.settings import Settings, from_config
from omniimage.systems import open_system

PHOTOGRAPHS = flags.DEFINE_integer("photographs", 1500, "of the set that the readers read", lower_bound=100)
WORKERS = flags.DEFINE_integer("workers", 2, "threads or processes of each reader", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 5, "in which the readers take turns", lower_bound=1)
RECORDS = flags.DEFINE_integer("records", 1_000_000, "of the large set; 0 leaves it out", lower_bound=0)
OUT = flags.DEFINE_string("out", None, "write the tables here, as Markdown")

SIDE, BATCH, QUALITY = 256, 64, 90
WARM = 4  # batches of a round before the clock starts


def main(_):
  with tempfile.TemporaryDirectory() as folder:
    tables = [readers(Path(folder))]
    if RECORDS.value:
      tables.append(large(Path(folder), RECORDS.value))
  text = "\n\n".join(tables)
  print(text)
  if OUT.value:
    Path(OUT.value).write_text(f"{text}\n")


# --------------------------------------------------------------------------------------------- the readers, in turns


def readers(folder: Path) -> str:
  """The table of images a second."""
  photographs, prepared = folder / "photographs", folder / "prepared"
  make_photographs(photographs, PHOTOGRAPHS.value)
  prepare(photographs, prepared)
  by = {
    "omniimage, threads": lambda: ours(prepared, processes=0),
    "omniimage, processes": lambda: ours(prepared, processes=WORKERS.value),
    "PyTorch DataLoader, PIL": lambda: torch_batches(Photographs(photographs)),
    "TFDS data source, DataLoader": lambda: torch_batches(TfdsPhotographs(prepared)),
  }
  rounds = {name: [] for name in by}
  for _ in range(ROUNDS.value):
    for name, batches in by.items():
      rounds[name].append(images_per_second(batches()))
  rates = {name: median(values) for name, values in rounds.items()}
  fastest = max(rate for name, rate in rates.items() if not name.startswith("omniimage"))
  lines = [
    f"| {SIDE}-pixel images, {WORKERS.value} workers | images/s | of the faster of the others |",
    "| --- | --- | --- |",
    *(f"| {name} | {rate:,.0f} | {rate / fastest:.2f} |" for name, rate in rates.items()),
  ]
  return "\n".join(lines)


def make_photographs(folder: Path, number: int):
  """JPEG files with a caption beside each."""
  folder.mkdir()
  rng = np.random.default_rng(0)
  for i in range(number):
    smooth = Image.fromarray(rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)).resize((640, 480), Image.BICUBIC)
    grain = np.asarray(smooth, np.int16) + rng.integers(-12, 13, (480, 640, 1))
    photograph = Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8))
    photograph.save(folder / f"{i:05d}.jpg", quality=QUALITY)
    (folder / f"{i:05d}.txt").write_text(f"photograph number {i}")


def prepare(source: Path, out: Path):
  command = [sys.executable, "-m", "launch.prepare", f"--source={source}", f"--out={out}", "--held_out=0"]
  subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def images_per_second(batches: Iterator[int]) -> float:
  """Of an iterator over the numbers of images of its batches, one pass."""
  for _ in range(WARM):
    next(batches)
  began = time.perf_counter()
  images = sum(batches)
  return images / (time.perf_counter() - began)


def settings_of(path: Path, **changes) -> Settings:
  """Of pictures of 256 pixels; `changes` of config.data."""
  config = configs.get_config("300m")
  config.data.source.path = str(path)
  config.data.update(changes)
  if not config.data.images_per_row:
    config.schedule = ("prior",)
    config.stages.prior.weights.update(dict(text=1.0, image=0.0))
  return from_config(config)


def batches_of(settings: Settings) -> Batches:
  text_tokenizer = TextTokenizer.load()
  system = open_system(settings, text_tokenizer.size)
  source = open_source(settings.data, "train", settings.buckets, text_tokenizer, system.vocabulary)
  return Batches(source, settings.data, system.vocabulary, text_tokenizer, settings.buckets, settings.seed)


def ours(path: Path, processes: int) -> Iterator[int]:
  settings = settings_of(path, workers=processes)
  rows = BATCH // settings.data.images_per_row
  batches = batches_of(settings).iterate(0, PHOTOGRAPHS.value // BATCH, rows, num_threads=WORKERS.value)
  return (int(batch["image_mask"].sum()) for _, batch in batches)


class Photographs:
  """As a PyTorch data set: the usual transform of torchvision, Resize and CenterCrop, by PIL."""

  def __init__(self, folder: Path):
    self.files = sorted(folder.glob("*.jpg"))

  def __len__(self) -> int:
    return len(self.files)

  def __getitem__(self, index: int) -> np.ndarray:
    with Image.open(self.files[index]) as image:
      return resize_and_crop(image.convert("RGB"))


class TfdsPhotographs:
  """A TFDS data source of the prepared folder, which decodes by itself."""

  def __init__(self, folder: Path):
    import tensorflow_datasets as tfds

    self.source = tfds.builder_from_directory(folder).as_data_source()["train"]

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, index: int) -> np.ndarray:
    return resize_and_crop(Image.fromarray(self.source[index]["images"][0]))


def resize_and_crop(image: Image.Image) -> np.ndarray:
  """(SIDE,SIDE,3) uint8: the shorter side resized, bilinear and antialiased, as torchvision does with PIL images."""
  scale = SIDE / min(image.size)
  width, height = (round(length * scale) for length in image.size)
  left, top = (width - SIDE) // 2, (height - SIDE) // 2
  return np.array(image.resize((width, height), Image.BILINEAR).crop((left, top, left + SIDE, top + SIDE)))


def torch_batches(dataset) -> Iterator[int]:
  import torch

  loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, num_workers=WORKERS.value, drop_last=True)
  return (len(batch) for batch in loader)


# ------------------------------------------------------------------------------------------------------ a large set


def large(folder: Path, records: int) -> str:
  """The table of a set of so many records. It is measured in a process of its own, which has read nothing else."""
  texts, out = folder / "texts.jsonl", folder / "large"
  with texts.open("w") as file:
    file.writelines(f'{{"text": "record number {i}, {"word " * (i % 97)}"}}\n' for i in range(records))
  prepare(texts, out)
  code = f"from benchmarks import input; input.measure_large({str(out)!r})"
  found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
  return f"| {records:,} records | |\n| --- | --- |\n{found.strip()}"


def measure_large(path: str):
  """Prints the rows of the table."""
  settings = settings_of(Path(path), images_per_row=0)
  began, before = time.perf_counter(), _megabytes()
  batches = batches_of(settings)
  _row("opened", f"{time.perf_counter() - began:.2f} s, {_megabytes() - before:,.0f} MB more")
  for index in (10, 10_000, 20, 10_010):
    _row(f"batch {index:,}", f"{_seconds(lambda index=index: batches.batch(index, 64)) * 1000:,.0f} ms")
  _row("memory at its most", f"{_megabytes() - before:,.0f} MB more")


def _row(name: str, value: str):
  print(f"| {name} | {value} |")


def _seconds(work: Callable) -> float:
  began = time.perf_counter()
  work()
  return time.perf_counter() - began


def _megabytes() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
  app.run(main)
