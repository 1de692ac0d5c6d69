"""A picture coming about, as a GIF: its visual tokens row by row, then each chunk out of its noise.

python -m launch.animate --workdir=runs/scenes --prompt="a large red star in the top left" --out=star.gif
"""

import io

from absl import flags

from omniimage.errors import UserError
from omniimage.paths import writing
from omniimage.ranges import SEEDS, Range

from . import cli, number_flags, sampling_flags
from .out_file import check_out

WORKDIR = cli.path_flag("workdir", "The run to draw with.")
PROMPT = flags.DEFINE_string("prompt", None, "What to draw.")
OUT = cli.path_flag("out", "GIF file to write.")
SIZE = flags.DEFINE_string("size", None, "Width:height, one of the run's, or pixels, as 128x64. Default: the run's.")
SEED = number_flags.whole("seed", 0, "Another seed draws another picture.", SEEDS)
SCALE = number_flags.whole("scale", 8, "Enlarges the pixels of small images.", Range(1, 64))
MILLISECONDS = {"tokens": 160, "painting": 60}  # a frame
LAST = 2500  # milliseconds that the picture is shown


def main(argv: list[str]):
  if argv[1:]:
    raise UserError(f"{argv[1]!r} is not a flag; put a prompt of several words in quotes: --prompt='a red star'")
  if not WORKDIR.value or PROMPT.value is None or not OUT.value:
    raise UserError("give --workdir=runs/scenes --prompt='a large red star in the top left' --out=star.gif")
  check_out(OUT.value, "GIF")

  from PIL import Image  # after the flags: a wrong one should not wait for jax

  from omniimage.files import write_whole
  from omniimage.sampling.animation import frames
  from omniimage.sampling.generate import Generator
  from omniimage.sampling.prompts import check_text, read_prompt
  from omniimage.systems import load_run, open_generator, open_system

  check_text(PROMPT.value)
  run = load_run(WORKDIR.value)
  settings = sampling_flags.overridden(run.settings if SIZE.value is None else run.settings.drawing(SIZE.value))
  read_prompt(PROMPT.value, settings, run.text_tokenizer)  # nor a wrong prompt for the compiler
  generator = open_generator(open_system(settings, run.text_tokenizer.size), run.params, run.text_tokenizer)
  if not isinstance(generator, Generator):
    raise UserError(f"a run of config.system={settings.system!r} does not paint chunk by chunk")
  kinds, shown = zip(*frames(generator, PROMPT.value, SEED.value))
  first, *others = (
    Image.fromarray(own).resize((own.shape[1] * SCALE.value, own.shape[0] * SCALE.value), Image.Resampling.NEAREST)
    for own in shown
  )
  gif, times = io.BytesIO(), [*(MILLISECONDS[kind] for kind in kinds[:-1]), LAST]
  first.save(gif, "GIF", save_all=True, append_images=others, duration=times, loop=0)
  with writing(OUT.value):
    write_whole(OUT.value, gif.getvalue())
  print(f"{OUT.value}: {len(shown)} frames, drawn at step {run.step} of the run")


if __name__ == "__main__":
  cli.run(main)
