"""launch.sample with a picture: a part of it drawn again, others like it; and what it is refused."""

import contextlib

import numpy as np
import pytest
from PIL import Image

from tests.launch import in_process
from tests.launch.random_run import random_run

SIDE = 16  # pixels that the small model draws


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """A run of random numbers, and pictures of 32 pixels a side beside it."""
  folder = tmp_path_factory.mktemp("a folder")
  random_run(folder / "run")
  pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
  Image.fromarray(pixels).save(folder / "cat.png")
  mask = np.zeros((32, 32), np.uint8)
  mask[16:] = 255
  Image.fromarray(mask).save(folder / "lower half.png")
  Image.fromarray(mask[:16]).save(folder / "small.png")
  (folder / "words.txt").write_text("no picture")
  return folder


def sample(files, capsys, *args) -> tuple[str, str]:
  """Output and errors."""
  with contextlib.suppress(SystemExit):
    in_process.call("sample", f"--workdir={files / 'run'}", f"--out={files / 'out.png'}", "--scale=1", *args)
  return capsys.readouterr()


def test_a_mask_is_drawn_again_and_the_rest_stays(files, capsys):
  out, _ = sample(
    files, capsys, f"--image={files / 'cat.png'}", f"--mask={files / 'lower half.png'}", "--prompt=a red star",
    "--num_images=2",
  )  # fmt: skip
  assert "2 drawn at step 1" in out
  drawn = np.asarray(Image.open(files / "out.png")).astype(int)
  given = np.asarray(Image.open(files / "cat.png").resize((SIDE, SIDE), Image.Resampling.BOX)).astype(int)
  assert drawn.shape == (SIDE, 2 * SIDE, 3)
  for own in (drawn[:, :SIDE], drawn[:, SIDE:]):
    assert abs(own[:8] - given[:8]).mean() < 12 and abs(own[8:] - given[8:]).mean() > 12


def test_variations_need_no_words(files, capsys):
  out, _ = sample(files, capsys, f"--image={files / 'cat.png'}", "--keep=0.5", "--num_images=3")
  assert "3 drawn at step 1" in out and Image.open(files / "out.png").size == (3 * SIDE, SIDE)


def test_two_pictures_are_remixed(files, capsys):
  given = [f"--image={files / 'cat.png'}", f"--remix={files / 'lower half.png'}", "--keep=0.75"]
  out, _ = sample(files, capsys, *given, "--num_images=2")
  assert "2 drawn at step 1" in out


def test_a_picture_goes_on_beyond_its_edge_and_another_size_is_drawn_with_a_warning(files, capsys, caplog):
  out, _ = sample(files, capsys, f"--image={files / 'cat.png'}", "--outpaint=0,16,0,0")
  assert "1 drawn at step 1" in out and Image.open(files / "out.png").size == (2 * SIDE, SIDE)
  out, _ = sample(files, capsys, "--prompt=a star", "--size=32x16")
  assert "the run has not learnt pictures of 32x16 pixels" in caplog.text
  assert "1 drawn at step 1" in out and Image.open(files / "out.png").size == (2 * SIDE, SIDE)


@pytest.mark.parametrize(
  ("args", "said"),
  [
    (["--image={}/cat.png"], "--image is given with --mask, --keep, --outpaint or"),
    (
      ["--image={}/cat.png", "--keep=0.5", "--mask={}/lower half.png"],
      "--image is given with --mask, --keep, --outpaint or",
    ),
    (["--keep=0.5", "--prompt=a star"], "--image is given with --mask, --keep, --outpaint or"),
    (["--image={}/cat.png", "--keep=1"], "--keep=1: must be from 0 to 0.99"),
    (["--image={}/cat.png", "--keep=0.5", "--split=test"], "or --split=test instead of --prompt"),
    (["--image={}/cat.png", "--outpaint=0,8"], "--outpaint=0,8: give pixels at the top, right, bottom and left"),
    (["--image={}/cat.png", "--outpaint=0,5,0,0"], "right=5, bottom=0, left=0: give multiples of the 8 pixels"),
    (["--image={}/cat.png", "--upscale"], "this run paints as many pixels as its tokenizer reads"),
    (["--size=2:1", "--prompt=a star"], "this run has learnt images of 1:1"),
    (["--image={}/none.png", "--keep=0.5"], "none.png cannot be read: No such file"),
    (["--image={}/cat.png", "--mask={}/none.png"], "none.png cannot be read: No such file"),
    (["--image={}/cat.png", "--mask={}/small.png"], "small.png is 32×16 and the picture 32×32; give one of its size"),
    (["--image={}/cat.png", "--mask={}/words.txt"], "words.txt cannot be read"),
    (["--image={}/words.txt", "--keep=0.5"], "words.txt cannot be read"),
    (
      ["--image={}/cat.png", "--mask={}/lower half.png", "--remix={}/cat.png"],
      "--remix is given with --image and --keep",
    ),
    (["--image={}/cat.png", "--remix={}/words.txt", "--keep=0.5"], "words.txt cannot be read"),
    (["--image={}/words.txt", "--mask={}/small.png"], "the picture cannot be read"),
  ],
)
def test_what_cannot_be_is_named(files, capsys, args, said):
  _, errors = sample(files, capsys, *(arg.format(files) for arg in args))
  assert errors.startswith("error: ") and said in errors and errors.count("\n") == 1
