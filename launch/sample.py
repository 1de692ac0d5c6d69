"""Draws a prompt, a file of prompts, or captions of the data, with a trained run.

python -m launch.sample --workdir=runs/scenes --prompt="a large red star in the top left" --out=star.png
python -m launch.sample --workdir=runs/emoji --split=test --num_images=16 --out=unseen.png
python -m launch.sample --workdir=runs/images --prompt="a lighthouse" --size=4:3 --out=lighthouse.png
python -m launch.sample --workdir=runs/images --image=cat.png --mask=mask.png --prompt="a cat in a hat" --out=hat.png
python -m launch.sample --workdir=runs/images --image=cat.png --keep=0.5 --num_images=4 --out=cats.png
python -m launch.sample --workdir=runs/images --image=cat.png --remix=hat.png --keep=0.8 --out=both.png
python -m launch.sample --workdir=runs/images --image=cat.png --outpaint=0,32,0,32 --prompt="two cats" --out=wide.png
python -m launch.sample --workdir=runs/fine --image=cat.png --upscale --out=large.png
python -m launch.sample --workdir=runs/images --prompts=prompts.jsonl --out=pictures

--prompts draws a picture for each line of a file into a folder, over all devices of all processes; the same command
goes on behind what is there. docs/sampling.md says what a line may be.
"""

import contextlib
import dataclasses
import io
import sys

from absl import flags, logging

from omniimage.errors import UserError
from omniimage.paths import writing
from omniimage.ranges import SEEDS, Range

from . import cli, number_flags, sampling_flags, weights
from .out_file import check_out

WORKDIR = cli.path_flag("workdir", "The run to draw with.", in_buckets=True)
PROMPT = flags.DEFINE_string("prompt", None, "What to draw.")
SPLIT = flags.DEFINE_enum("split", None, ["train", "test"], "Instead of a prompt: captions from all over this split.")
PROMPTS = cli.path_flag("prompts", "A file with a prompt a line; --out is then a folder.")
OUT = cli.path_flag("out", "PNG file to write; with --prompts the folder to make.")
IMAGE = cli.path_flag(
  "image", "A picture of which --mask is drawn again, or a share but for --keep; or for --outpaint, or --upscale."
)
MASK = cli.path_flag("mask", "Of --image and of its size: what is transparent, or else white, is drawn again.")
REMIX = cli.path_flag("remix", "A second picture, of which half of what stays of --image is; with --keep.")
KEEP = number_flags.real("keep", None, "Share of the visual tokens of --image that stay.", Range(0, 0.99))
OUTPAINT = flags.DEFINE_list(
  "outpaint",
  None,
  "Pixels by which the frame of --image is moved outwards at the top, right, bottom and left; below zero inwards.",
)
UPSCALE = flags.DEFINE_boolean("upscale", False, "Paints --image anew, as finely as the run has learnt.")
NUM_IMAGES = number_flags.whole("num_images", 1, "How many.", Range(1, 4096))
SIZE = flags.DEFINE_string(
  "size",
  None,
  "Of what is drawn: width:height, one of the run's data.aspect_ratios, or pixels, as 128x64, whether the run has "
  "learnt them or not. Default: the run's first.",
)
flags.DEFINE_alias("aspect_ratio", "size")
SEED = number_flags.whole("seed", 0, "Another seed draws another picture.", SEEDS)
BATCH = number_flags.whole("batch", 8, "With --prompts: pictures that a device draws at once.", Range(1, 1024))
SCALE = number_flags.whole(
  "scale", 4, "Enlarges the pixels of small images; with --prompts 1 unless given.", Range(1, 1024)
)

OF_ONE_PICTURE = (PROMPT, SPLIT, IMAGE, MASK, REMIX, KEEP, OUTPAINT, UPSCALE, NUM_IMAGES)
MOST_PIXELS = 2**26  # of the picture that is written: 200 MB before it is compressed


def main(argv: list[str]):
  if argv[1:]:
    raise UserError(f"{argv[1]!r} is not a flag; put a prompt of several words in quotes: --prompt='a red star'")
  if PROMPTS.value is not None:
    return _draw_file()
  if BATCH.present:
    raise UserError("--batch is of --prompts, a file with a prompt a line")
  ways = PROMPT.value is not None or IMAGE.value is not None, SPLIT.value is not None
  if not WORKDIR.value or sum(ways) != 1 or not OUT.value:
    raise UserError(
      "give --workdir=runs/scenes --prompt='a large red star in the top left' --out=star.png, or --split=test "
      "instead of --prompt"
    )
  changed = [flag for flag in (MASK, KEEP, OUTPAINT, UPSCALE) if flag.value not in (None, False)]
  if len(changed) != (IMAGE.value is not None):
    raise UserError("--image is given with --mask, --keep, --outpaint or --upscale, and these with --image")
  sides = _sides(OUTPAINT.value)
  if REMIX.value is not None and KEEP.value is None:
    raise UserError("--remix is given with --image and --keep, the share of the visual tokens of both that stays")
  check_out(OUT.value)

  import numpy as np  # after the flags: a wrong one should not wait for jax
  from PIL import Image

  from omniimage.evaluation.held_out import drawn, picked
  from omniimage.evaluation.sheets import DISPLAYED, sheet, to_uint8
  from omniimage.files import write_whole
  from omniimage.sampling.prompts import check_text, read_prompt
  from omniimage.systems import open_generator, open_system

  if PROMPT.value is not None:
    check_text(PROMPT.value)
  spread = _devices() if SPLIT.value else None
  run = _shaped(weights.load_run(WORKDIR.value, on_host=spread is not None))
  height, width = run.settings.buckets[0].pixels
  scale = max(1, DISPLAYED // max(height, width)) if SPLIT.value else SCALE.value
  check_pixels(NUM_IMAGES.value, (height * scale, width * scale))
  if PROMPT.value is not None:
    read_prompt(PROMPT.value, run.settings, run.text_tokenizer)  # nor a wrong prompt for the compiler
    _warn_of_unseen([PROMPT.value], run)
  system = open_system(sampling_flags.overridden(run.settings), run.text_tokenizer.size)
  generator = open_generator(system, run.params, run.text_tokenizer, spread)
  if SPLIT.value is None:
    drawing = (
      _redrawn(generator, sides) if IMAGE.value else generator([PROMPT.value] * NUM_IMAGES.value, seed=SEED.value)
    )
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


def _draw_file():
  """A picture for each line of --prompts."""
  if not WORKDIR.value or not OUT.value:
    raise UserError("give --workdir=runs/scenes --prompts=prompts.jsonl --out=pictures, a folder")
  if given := [flag.name for flag in OF_ONE_PICTURE if flag.present]:
    raise UserError(f"--{given[0]} is of a single picture, and --prompts draws one a line; leave one of them out")

  from omniimage.drawn.prompts import read_prompts

  wanted = read_prompts(PROMPTS.value, SEED.value)

  import jax
  from tqdm import tqdm

  from omniimage.distributed.agree import first_says
  from omniimage.distributed.spread import local
  from omniimage.drawn.draw import draw, drawn_with
  from omniimage.drawn.folder import Folder
  from omniimage.drawn.prompts import check_prompts
  from omniimage.systems import open_generator, open_system

  from . import processes

  folder = Folder(OUT.value)
  with contextlib.closing(folder.lock), processes.joined():  # which lasts until all have drawn
    processes.end_at_once()
    first = jax.process_index() == 0
    run = _shaped(weights.load_run(WORKDIR.value, on_host=True))
    check_prompts(PROMPTS.value, wanted, run.settings, run.text_tokenizer)
    system = open_system(sampling_flags.overridden(run.settings), run.text_tokenizer.size)
    scale = SCALE.value if SCALE.present else 1
    about = first_says(lambda: drawn_with(run, system.settings, weights.DTYPE.value, scale))
    first_says(folder.create)
    folder.lock.take()
    if first:
      _warn_of_unseen([one.prompt for one in wanted], run)
    spread = local()
    generator = open_generator(system, run.params, run.text_tokenizer, spread)
    with tqdm(unit="picture", disable=not (first and sys.stderr.isatty())) as bar:

      def progress(done: int, of: int):
        bar.total = of
        bar.update(done - bar.n)

      drawn = draw(generator, wanted, folder, about, BATCH.value, len(spread), scale, progress)
  if first:
    there = folder.drawn()
    if missing := [one.name for one in wanted if one.name not in there]:
      raise UserError(f"{missing[0]} and {len(missing) - 1} more pictures have vanished from {OUT.value}; run it again")
    print(f"{OUT.value}: {len(wanted):,} pictures, {drawn:,} of them drawn now, at step {run.step} of the run")


def _shaped(run):
  """The run, to draw in the size that is asked for."""
  if SIZE.value is None:
    return run
  shaped = dataclasses.replace(run, settings=run.settings.drawing(SIZE.value))
  if shaped.settings.buckets[0] not in run.settings.buckets:
    logging.warning("the run has not learnt pictures of %s pixels; they may be worse", SIZE.value)
  return shaped


def _devices():
  """Those of this process, if it has more than one."""
  from omniimage.distributed.spread import local

  return local() if len(local()) > 1 else None


def _sides(given: list[str] | None) -> dict[str, int]:
  """--outpaint by names. UserError where it is not four whole numbers."""
  if given is None:
    return {}
  try:
    top, right, bottom, left = map(int, given)
  except ValueError:
    raise UserError(
      f"--outpaint={','.join(given)}: give pixels at the top, right, bottom and left, as in --outpaint=0,32,0,32"
    ) from None
  return {"top": top, "right": right, "bottom": bottom, "left": left}


def _redrawn(generator, sides: dict[str, int]):
  from omniimage.sampling.generate import Generator
  from omniimage.sampling.pictures import read_mask

  if not isinstance(generator, Generator):
    raise UserError(f"a run of config.system={generator.settings.system!r} draws no parts of pictures again")
  asked = dict(prompt=PROMPT.value or "", n=NUM_IMAGES.value, seed=SEED.value)
  if REMIX.value is not None:
    return generator.remix(IMAGE.value, REMIX.value, keep=KEEP.value, **asked)
  if sides:
    return generator.outpaint(IMAGE.value, **sides, **asked)
  if UPSCALE.value:
    return generator.upscale(IMAGE.value, **asked)
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


if __name__ == "__main__":
  cli.run(main)
