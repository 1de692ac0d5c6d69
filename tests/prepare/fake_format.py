"""A format for tests: a folder of JSON files, each a unit, a list of rows that say what they are.

As a program, the command with this format: python -m tests.prepare.fake_format --source=… --out=…
"""

import hashlib
import io
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from omniimage.data import formats
from omniimage.data.formats.format import Row, Unit
from omniimage.data.prepared import Prepared
from omniimage.data.records import captioned, text_alone
from omniimage.prepare.prepare import Request, prepare


@dataclass(frozen=True)
class Fake:
  source: str

  def found(self) -> str:
    return "rows of JSON"

  def units(self):
    files = sorted(Path(self.source).glob("*.json"))
    return [Unit(file.name, str(file), len(json.loads(file.read_text()))) for file in files]

  def rows(self, unit):
    for i, told in enumerate(json.loads(Path(unit.content).read_text())):
      yield _row(f"{unit.name}:{i}", told)

  def fingerprint(self):
    contents = [path.read_bytes() for path in sorted(Path(self.source).glob("*.json"))]
    return hashlib.sha256(b"".join(contents)).hexdigest()


def _row(key: str, told: dict) -> Row:
  """What happens first, then a picture of a seed with its caption, a text, or a problem."""
  time.sleep(told.get("seconds", 0))
  if "signal" in told and not Path(told["once"]).exists():
    Path(told["once"]).touch()
    os.kill(os.getpid(), signal.Signals[told["signal"]])
  if "problem" in told:
    return Row(key, problem=told["problem"])
  if "text" in told:
    return Row(key, text_alone(key, told["text"]), split=told.get("split"))
  captions = told["caption"] if isinstance(told["caption"], list) else [told["caption"]]
  image = b"no picture" if told.get("broken") else picture(told["seed"], told.get("size", (8, 6)))
  return Row(key, captioned(key, captions, image), split=told.get("split"))


def picture(seed: int, size=(8, 6)) -> bytes:
  """PNG of noise, width × height."""
  pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue()


def open_fake(source, name, given):
  return "fake", Fake(source)


def write(folder: Path, units: dict[str, list[dict]]) -> Path:
  folder.mkdir(exist_ok=True)
  for name, rows in units.items():
    (folder / f"{name}.json").write_text(json.dumps(rows))
  return folder


def rows(start: int, count: int, **more) -> list[dict]:
  return [{"seed": i, "caption": f"picture {i}", **more} for i in range(start, start + count)]


def prepared(folder: Path, units: dict[str, list[dict]], **request) -> Prepared:
  """What is made of such units, in a folder for both."""
  source = write(folder / "source", units)
  with mock.patch.object(formats, "open_format", open_fake, create=True):
    return prepare(Request(str(source), folder / "prepared", **request), say=lambda line: None)


if __name__ == "__main__":
  from launch import cli
  from launch import prepare as command
  from tests.prepare import fake_format

  formats.open_format = fake_format.open_fake  # whose classes other processes find by this name
  cli.run(command.main)
