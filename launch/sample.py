"""Draws a prompt, or captions of the data, with a trained run.

python -m launch.sample --workdir=runs/scenes --prompt="a large red star in the top left" --out=star.png
python -m launch.sample --workdir=runs/emoji --split=test --num_images=16 --out=unseen.png
python -m launch.sample --workdir=runs/images --prompt="a lighthouse" --aspect_ratio=4:3 --out=lighthouse.png
python -m launch.sample --workdir=runs/images --image=cat.png --mask=mask.png --prompt="a cat in a hat" --out=hat.png
python -m launch.sample --workdir=runs/images --image=cat.png --keep=0.5 --num_images=4 --out=cats.png
python -m launch.sample --workdir=runs/images --image=cat.png --remix=hat.png --keep=0.8 --out=both.png
"""

import dataclasses
import io
from pathlib import Path

from absl import flags, logging

from omniimage.errors import UserError
from omniimage.paths import writing
from omniimage.ranges import SEEDS, Range

from . import cli, number_flags, sampling_flags

WORKDIR = cli.path_flag("workdir", "The run to draw with.", in_buckets=True)
PROMPT = flags.DEFINE_string("prompt", None, "What to draw.")
SPLIT = flags.DEFINE_enum("split", None, ["train", "test"], "Instead of a prompt: captions from all over this split.")
OUT = cli.path_flag("out", "PNG file to write.")
IMAGE = cli.path_flag("image", "A picture of which --mask is drawn again, or a share but for --keep.")
MASK = cli.path_flag("mask", "Of --image and of its size: what is transparent, or else white, is drawn again.")
REMIX = cli.path_flag("remix", "A second picture, of which half of what stays of --image is; with --keep.")
KEEP = number_flags.real("keep", None, "Share of the visual tokens of --image that stay.", Range(0, 0.99))
NUM_IMAGES = number_flags.whole("num_images", 1, "How many.", Range(1, 4096))
ASPECT_RATIO = flags.DEFINE_string(
  "aspect_ratio", None, "Width:height of what is drawn, one of the run's data.aspect_ratios. Default: the first."
)
SEED = number_flags.whole("seed", 0, "Another seed draws another picture.", SEEDS)
SCALE = number_flags.whole("scale", 4, "Enlarges the pixels of small images.", Range(1, 1024))

MOST_PIXELS = 2**26  # of the picture that is written: 200 MB before it is compressed


def main(argv: list[str]):
  if argv[1:]:
    raise UserError(f"{argv[1]!r} is not a flag; put a prompt of several words in quotes: --prompt='a red star'")
  ways = PROMPT.value is not None or IMAGE.value is not None, SPLIT.value is not None
  if not WORKDIR.value or sum(ways) != 1 or not OUT.value:
    raise UserError(
      "give --workdir=runs/scenes --prompt='a large red star in the top left' --out=star.png, or --split=test "
      "instead of --prompt"
    )
  changed = [flag for flag in (MASK, KEEP) if flag.value is not None]
  if len(changed) != (IMAGE.value is not None):
    raise UserError("--image is given with --mask or with --keep, and these with --image")
  if REMIX.value is not None and KEEP.value is None:
    raise UserError("--remix is given with --image and --keep, the share of the visual tokens of both that stays")
  check_out(OUT.value)

  import numpy as np  # after the flags: a wrong one should not wait for jax
  from PIL import Image

  from omniimage.evaluation.held_out import drawn, picked
  from omniimage.evaluation.sheets import DISPLAYED, sheet, to_uint8
  from omniimage.files import write_whole
  from omniimage.sampling.prompts import check_text, read_prompt
  from omniimage.systems import load_run, open_generator, open_system

  if PROMPT.value is not None:
    check_text(PROMPT.value)
  run = load_run(WORKDIR.value)
  if ASPECT_RATIO.value is not None:
    run = dataclasses.replace(run, settings=run.settings.drawing(ASPECT_RATIO.value))
  height, width = run.settings.buckets[0].pixels
  scale = max(1, DISPLAYED // max(height, width)) if SPLIT.value else SCALE.value
  check_pixels(NUM_IMAGES.value, (height * scale, width * scale))
  if PROMPT.value is not None:
    read_prompt(PROMPT.value, run.settings, run.text_tokenizer)  # nor a wrong prompt for the compiler
    _warn_of_unseen([PROMPT.value], run)
  system = open_system(sampling_flags.overridden(run.settings), run.text_tokenizer.size)
  generator = open_generator(system, run.params, run.text_tokenizer)
  if SPLIT.value is None:
    drawing = _redrawn(generator) if IMAGE.value else generator([PROMPT.value] * NUM_IMAGES.value, seed=SEED.value)
    picture = Image.fromarray(np.concatenate(list(to_uint8(drawing.images)), axis=1))
    size = (picture.width * SCALE.value, picture.height * SCALE.value)
    picture = picture.resize(size, Image.Resampling.NEAREST)
  else:
    captions = picked(generator, SPLIT.value, NUM_IMAGES.value, SEED.value).captions
    _warn_of_unseen(captions, run)
    drawing = drawn(generator, captions, SEED.value, batch=64)
    picture = sheet({f"{SPLIT.value} captions": drawing.images}, captions)
  png = io.BytesIO()
  picture.save(png, "PNG")
  with writing(OUT.value):
    write_whole(OUT.value, png.getvalue())
  print(f"{OUT.value}: {len(drawing.images)} drawn at step {run.step} of the run")


def _redrawn(generator):
  from omniimage.sampling.generate import Generator
  from omniimage.sampling.pictures import read_mask

  if not isinstance(generator, Generator):
    raise UserError(f"a run of config.system={generator.settings.system!r} draws no parts of pictures again")
  asked = dict(prompt=PROMPT.value or "", n=NUM_IMAGES.value, seed=SEED.value)
  if REMIX.value is not None:
    return generator.remix(IMAGE.value, REMIX.value, keep=KEEP.value, **asked)
  if MASK.value is None:
    return generator.vary(IMAGE.value, keep=KEEP.value, **asked)
  mask, picture = (_content(flag) for flag in (MASK, IMAGE))
  return generator.inpaint(picture, read_mask(mask, picture, f"--mask={MASK.value}"), **asked)


def _content(flag: flags.FlagHolder) -> bytes:
  try:
    return flag.value.read_bytes()
  except OSError as error:
    raise UserError(
      f"--{flag.name}={flag.value} cannot be read: {error.strerror}; give the file of a picture"
    ) from None


def check_pixels(images: int, shown: tuple[int, int]):
  """UserError where so many images, each of so many pixels on the sheet, make a picture that no memory or viewer
  takes."""
  height, width = shown
  if images * height * width > MOST_PIXELS:
    raise UserError(
      f"--num_images={images}, each shown {width:,} pixels wide, are {images * height * width:,} pixels, more than the "
      f"{MOST_PIXELS:,} of a picture that can be shown; draw fewer, or --scale them less"
    )


def _warn_of_unseen(prompts, run):
  from omniimage.sampling.prompts import unseen
  from omniimage.systems import system_named

  abilities = system_named(run.settings.system).abilities
  if "codes" in abilities and "chunks" not in abilities:  # nothing paints beside what reads the whole prompt
    return
  if text := unseen(prompts, run.settings, run.text_tokenizer, "codes" in abilities):
    logging.warning("%s", text)


def check_out(path: Path):
  """UserError where no PNG could be written."""
  if path.suffix.lower() != ".png":
    raise UserError(f"--out={path} must be the name of a PNG file, as in --out=star.png")
  if not path.parent.is_dir():
    raise UserError(f"--out={path}: its folder does not exist; make it first")
  try:
    existed = path.exists()
    path.open("ab").close()
    if not existed:
      path.unlink()
  except OSError as error:
    raise UserError(f"--out={path} cannot be written: {error.strerror}; choose another file") from None


if __name__ == "__main__":
  cli.run(main)
