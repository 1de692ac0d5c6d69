"""A picture for each prompt: once, whatever stops the command, and the same on any number of devices."""

import contextlib
import io
from collections import Counter

import jax
import numpy as np
import pytest
from PIL import Image

from omniimage.distributed.spread import Spread
from omniimage.drawn import draw as module
from omniimage.drawn.draw import draw, fingerprint, in_batches
from omniimage.drawn.folder import Folder
from omniimage.drawn.prompts import Wanted
from omniimage.errors import UserError
from omniimage.evaluation.sheets import to_uint8
from omniimage.sampling.drawing import Drawing, Draws
from omniimage.sampling.generate import Generator
from tests import small

ABOUT = {"checkpoint": "step 8", "sampling": {"guidance": 2.0, "chunk_rows": (2,)}}
LONG = "a large red star in the top left and a small blue circle in the bottom right"


class Killed(BaseException):
  """As a kill: nothing of the command goes on."""


class Painter(Draws):
  """Paints a prompt's length and its seed; dies after so many calls."""

  def __init__(self, calls: int = 10**6):
    self.left, self.asked = calls, []

  def load(self, params):
    pass

  def __call__(self, prompts, seed=0, **changes):
    raise NotImplementedError

  def each(self, prompts, seeds, **changes) -> Drawing:
    if not self.left:
      raise Killed
    self.left -= 1
    self.asked += zip(prompts, seeds)
    colors = np.asarray([(len(prompt), seed % 256, 7) for prompt, seed in zip(prompts, seeds)], np.uint8)
    return Drawing(None, None, np.broadcast_to(colors[:, None, None], (len(prompts), 4, 4, 3)))

  def places(self, prompt: str) -> int:
    return 16 * (1 + len(prompt) // 16)


def wanted(count: int) -> list[Wanted]:
  """Of three lengths, in no order."""
  return [Wanted(f"{i:04d}", "a star " * (1 + 5 * i % 7), 11 * i, i + 1) for i in range(count)]


class Noted(Folder):
  """Notes what is written."""

  def __init__(self, path):
    super().__init__(path)
    self.written = []

  def write(self, name: str, png: bytes):
    super().write(name, png)
    self.written.append(name)


def run(path, asked, generator=None, about=ABOUT, batch=4, devices=2) -> list[str]:
  """Draws what is missing, and says what that was."""
  folder = Noted(path)
  draw(generator or Painter(), asked, folder, about, batch, devices)
  return folder.written


@contextlib.contextmanager
def one_of(count: int, index: int, said: list):
  """In the place of a process of several. They are one after the other; all hear what the first one has said."""

  def first_says(act):
    if not said:
      said.append(act())
    return said[0]

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jax, "process_index", lambda: index)
    patch.setattr(jax, "process_count", lambda: count)
    patch.setattr(module, "first_says", first_says)
    patch.setattr(module, "from_each", lambda text: [text] * count)
    yield


def colors(folder) -> dict[str, tuple]:
  found = {}
  for path in folder.glob("*.png"):
    with Image.open(path) as picture:
      found[path.stem] = picture.getpixel((0, 0))
  return found


def expected(asked) -> dict[str, tuple]:
  return {one.name: (len(one.prompt), one.seed % 256, 7) for one in asked}


@pytest.mark.parametrize("devices, batch", [(1, 1), (1, 4), (2, 4), (8, 3), (3, 64)])
def test_every_prompt_gets_its_own_picture_once(tmp_path, devices, batch):
  asked = wanted(45)
  written = run(tmp_path, asked, devices=devices, batch=batch)
  assert sorted(written) == sorted(one.name for one in asked) and colors(tmp_path) == expected(asked)


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_share_the_prompts_and_none_is_drawn_twice(tmp_path, processes):
  asked, said, written = wanted(120), [], []
  for index in range(processes):
    with one_of(processes, index, said):
      own = run(tmp_path, asked)
    assert len(own) >= 120 // (2 * processes), "each its share"
    written += own
  assert Counter(written) == Counter(one.name for one in asked) and colors(tmp_path) == expected(asked)


def test_the_same_command_after_kills_goes_on_behind_what_is_there(tmp_path):
  asked, kills = wanted(60), 0
  while kills < 100:
    try:
      run(tmp_path, asked, Painter(2), devices=1 + kills % 3)
      break
    except Killed:
      kills += 1
    assert colors(tmp_path).items() <= expected(asked).items()
  assert 2 < kills < 100 and colors(tmp_path) == expected(asked)
  whole = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")}
  assert run(tmp_path, asked) == [], "nothing is left to do"
  assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.png")} == whole


def test_of_a_batch_that_a_kill_has_cut_the_missing_ones_alone_are_written(tmp_path):
  asked = wanted(12)
  run(tmp_path, asked)
  lost = [asked[3].name, asked[8].name]
  for name in lost:
    (tmp_path / f"{name}.png").unlink()
  (tmp_path / f"{lost[0]}.png.tmp").write_bytes(b"\x89PNG half a pic")
  assert sorted(run(tmp_path, asked)) == lost and colors(tmp_path) == expected(asked)
  assert not list(tmp_path.glob("*.tmp"))


def test_batches_are_of_the_file_alone_and_of_one_length():
  asked, places = wanted(45), Painter().places
  batches = in_batches(asked, places, 4)
  assert sorted(one.line for own in batches for one in own) == list(range(1, 46))
  assert all(len({places(one.prompt) for one in own}) == 1 and len(own) <= 4 for own in batches)


def test_other_prompts_or_another_model_are_refused_and_nothing_is_overwritten(tmp_path):
  asked = wanted(6)
  run(tmp_path, asked)
  before = {path: path.read_bytes() for path in tmp_path.iterdir()}
  other = [*asked[:4], Wanted("0004", "a circle", 44, 5), asked[5]]
  for prompts, about, said in (
    (other, ABOUT, "is of other prompts, which .*prompts.jsonl has: line 5 is another"),
    (asked[:5], ABOUT, "it asks for 6 pictures"),
    (asked, ABOUT | {"checkpoint": "step 9"}, 'another checkpoint: "step 8" there, "step 9" here'),
    (asked, ABOUT | {"sampling": {"guidance": 1.0}}, "another sampling"),
  ):
    with pytest.raises(UserError, match=said):
      run(tmp_path, prompts, about=about)
  assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
  (tmp_path / "drawing.json").write_text("{")
  with pytest.raises(UserError, match="cannot be read"):
    run(tmp_path, asked)


def test_pictures_of_someone_else_are_not_overwritten(tmp_path):
  (tmp_path / "0002.png").write_bytes(b"mine")
  (tmp_path / "notes.txt").write_bytes(b"mine")
  with pytest.raises(UserError, match=r"0002\.png is there already"):
    run(tmp_path, wanted(6))
  assert (tmp_path / "0002.png").read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 2


def test_a_fingerprint_tells_parameters_apart_and_knows_them_again():
  params = {"a": {"kernel": np.ones((2, 3), np.float32)}, "b": np.float32(1)}
  again = {"a": {"kernel": jax.numpy.ones((2, 3))}, "b": np.float32(1)}
  assert fingerprint(params) == fingerprint(again)
  params["a"]["kernel"][1, 2] = np.nextafter(np.float32(1), np.float32(2))
  assert fingerprint(params) != fingerprint(again)


def test_pictures_are_the_same_bits_on_any_number_of_devices_and_whatever_is_drawn_beside_them(tmp_path):
  """With the real model. A program has two rows for each device, whatever their number."""
  settings = small.settings(**small.SHALLOW)
  params = small.params(small.omni(settings))
  texts = ["a large red star", "a small blue circle", LONG]
  asked = [Wanted(f"{i}", texts[i % 3], i // 2, i + 1) for i in range(10)]
  contents = {}
  for devices in (1, 2, 4):
    folder, spread = tmp_path / str(devices), Spread(tuple(jax.devices()[:devices]))
    folder.mkdir()
    generator = Generator(settings, params, small.text_tokenizer(), spread)
    assert draw(generator, asked, Folder(folder), ABOUT, 2, devices) == len(asked)
    contents[devices] = {path.name: path.read_bytes() for path in folder.glob("*.png")}
  assert contents[1] == contents[2] == contents[4] and len(set(contents[1].values())) > 5
  for other, again in ((asked[::-1], 4), (asked[3:4], 1)):  # drawn beside others, and alone
    (folder := tmp_path / f"other{len(other)}").mkdir()
    draw(generator, other, Folder(folder), ABOUT, 2, 4)
    assert {path.name: path.read_bytes() for path in folder.glob("*.png")}.items() <= contents[1].items(), again
  alone = small.generator()([asked[4].prompt], seed=asked[4].seed).images[0]  # as --prompt draws it
  with Image.open(io.BytesIO(contents[1]["4.png"])) as picture:
    np.testing.assert_allclose(np.asarray(picture).astype(int), to_uint8(alone).astype(int), atol=1)
