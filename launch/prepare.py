"""Makes a data set of your own pictures, in the one format that training reads.

  python -m launch.prepare --source=PATH_OR_NAME --out=DIR
    [--format=folder|webdataset|parquet|conversations|edits|text|tfds|scenes|emoji]
    [--image_column=NAME --caption_column=NAME_OR_TEMPLATE --split_column=NAME --metadata=FILE --map=FEATURE=ROLE]
    [--held_out=SHARE --workers=N --name=NAME --licence=NOTE] [--runner=NAME [-- OPTIONS_OF_THE_RUNNER]]

What a source may be, and what becomes of it, stands in docs/own_images.md. Whatever stops it, the same command goes on.

With a run whose tokenizer is trained, the images of a prepared data set are encoded once, for stages that read codes:

  python -m launch.prepare --source=PREPARED --tokenize=WORKDIR --out=DIR [--variants=whole,flipped,part --workers=N]
"""

import os
import re
from pathlib import Path

from absl import flags

from omniimage.errors import UserError
from omniimage.paths import absolute, is_utf8
from omniimage.ranges import Range

from . import cli, number_flags

SOURCE = flags.DEFINE_string("source", None, "A folder or file of your own, or the name of a data set.")
OUT = cli.path_flag("out", "The folder to make.")
FORMAT = flags.DEFINE_string("format", None, "What the source is; by default it is guessed.")
IMAGE_COLUMN = flags.DEFINE_string("image_column", "", "The field that names or holds the picture.")
CAPTION_COLUMN = flags.DEFINE_multi_string(
  "caption_column",
  [],
  'The field with the caption, or a template: "{label} in {style} style". Repeat it for alternatives.',
)
SPLIT_COLUMN = flags.DEFINE_string("split_column", "", "The field that says train or test.")
METADATA = flags.DEFINE_string("metadata", "", "The file that lists the pictures, relative to the source.")
MAP = flags.DEFINE_multi_string(
  "map", [], "FEATURE=ROLE, as image=assistant: who shows or says a TFDS data set's feature. Repeat it, in order."
)
HELD_OUT = number_flags.real(
  "held_out", 0.05, "Share of the pictures for tests, where the source does not say which.", Range(0, 0.99)
)
WORKERS = number_flags.whole("workers", None, "Processes; by default as many as there are cores.", Range(1, 1024))
SHARD_BYTES = number_flags.whole("shard_bytes", 256 * 2**20, "About how large a file is.", Range(2**10, 2**40))
LICENCE = flags.DEFINE_string("licence", "", "A note on what the pictures may be used for; it is kept with them.")
NAME = flags.DEFINE_string("name", "", "Of the data set: small letters, digits and _. By default after the source.")
RUNNER = flags.DEFINE_string("runner", "", "Run as an Apache Beam pipeline, as DirectRunner; its options follow --.")
TOKENIZE = cli.path_flag("tokenize", "A run: its tokenizer encodes the images of --source, a prepared data set.")
VARIANTS = flags.DEFINE_list(
  "variants",
  ["whole"],
  "With --tokenize: what is encoded of each image: whole, flipped, part, the last more than once.",
)

# What is of a conversion alone.
CONVERSION = (
  FORMAT, IMAGE_COLUMN, CAPTION_COLUMN, SPLIT_COLUMN, METADATA, MAP, HELD_OUT, SHARD_BYTES, LICENCE, NAME, RUNNER
)  # fmt: skip
TEXTS = (SOURCE, FORMAT, IMAGE_COLUMN, SPLIT_COLUMN, METADATA, LICENCE, NAME, RUNNER)


def main(argv: list[str]):
  if argv[1:] and not RUNNER.value:
    raise UserError(f"{argv[1]!r} is not a flag; flags begin with --, as in --source=pictures")
  if not SOURCE.value or OUT.value is None:
    raise UserError("give --source=pictures and --out=DIR, the folder to make")
  _check_texts()
  if TOKENIZE.value is not None:
    return _tokenize()
  if VARIANTS.present:
    raise UserError("--variants is of codes: give --tokenize=WORKDIR too, a run whose tokenizer is trained")

  from omniimage.data.formats.format import (  # after the flags: a wrong one should not wait for the libraries
    Given,
    mapping_of,
  )
  from omniimage.prepare.prepare import Request, prepare

  given = Given(
    IMAGE_COLUMN.value, tuple(CAPTION_COLUMN.value), SPLIT_COLUMN.value, METADATA.value, mapping_of(MAP.value, "--map")
  )
  request = Request(
    source=_source(SOURCE.value),
    out=OUT.value,
    format=FORMAT.value or None,
    given=given,
    held_out=HELD_OUT.value,
    licence=LICENCE.value,
    name=NAME.value,
    shard_bytes=SHARD_BYTES.value,
    workers=_workers(),
    runner=RUNNER.value,
    runner_options=tuple(argv[1:]),
  )
  prepare(request, say=lambda line: print(line, flush=True))


def _tokenize():
  if given := [flag.name for flag in CONVERSION if flag.present]:
    raise UserError(f"--{given[0]} is of a conversion, and --tokenize takes --source as it was prepared; leave it out")

  from omniimage.prepare.tokenize import Request, tokenize
  from omniimage.prepare.views import check_variants

  variants = check_variants(VARIANTS.value)
  request = Request(absolute(SOURCE.value), TOKENIZE.value, OUT.value, variants, _workers())
  tokenize(request, say=lambda line: print(line, flush=True))


def _workers() -> int:
  return WORKERS.value or os.cpu_count() or 1


def _check_texts():
  for flag in TEXTS:
    if flag.value and not is_utf8(flag.value):
      raise UserError(f"--{flag.name}={flag.value!r} is no text: it is not UTF-8")
  for flag in (CAPTION_COLUMN, MAP):
    if wrong := [text for text in flag.value if not text or not is_utf8(text)]:
      raise UserError(f"--{flag.name}={wrong[0]!r} is not the name of a field")
  if NAME.value and not re.fullmatch(r"[a-z][a-z0-9_]*", NAME.value):
    raise UserError(f"--name={NAME.value!r} must be small letters, digits and _, and begin with a letter")


def _source(typed: str) -> str:
  """From the root where it is a path, or a pattern in a folder that is there; else the name of a data set."""
  path = Path(typed).expanduser()
  is_path = "://" in typed or path.exists() or (path.name != typed and path.parent.exists())
  return str(absolute(typed)) if is_path else typed


if __name__ == "__main__":
  cli.run(main)
