"""One thing in every style: what a run draws of captions as "a cat, flat style", beside the true pictures.

  python -m benchmarks.styles --workdir=runs/emoji_styles --split=train --out=styles.png

The run is of a prepared data set whose captions name a style so. Things that come in every style are picked by chance.
"""

import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from absl import app, flags

from omniimage.data import images
from omniimage.data.prepared import Prepared
from omniimage.data.records import Record
from omniimage.evaluation.held_out import drawn
from omniimage.evaluation.sheets import sheet
from omniimage.sampling.generate import Generator
from omniimage.workdir import load_run

WORKDIR = flags.DEFINE_string("workdir", None, "the run", required=True)
SPLIT = flags.DEFINE_enum("split", "train", ["train", "test"], "whose things are drawn")
THINGS = flags.DEFINE_integer("things", 8, "rows of the sheet", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "picks the things and draws them", lower_bound=0)
OUT = flags.DEFINE_string("out", None, "PNG file to write", required=True)

CAPTION = re.compile(r"(.*), (\w+) style")


def main(_):
  run = load_run(WORKDIR.value)
  source, size = run.settings.data.source, run.settings.buckets[0]
  by_thing = things(Prepared.open(Path(source.path)), SPLIT.value)
  styles = sorted(set().union(*by_thing.values()))
  complete = [thing for thing, found in by_thing.items() if len(found) == len(styles)]
  picked = np.random.default_rng(SEED.value).choice(complete, min(THINGS.value, len(complete)), replace=False).tolist()
  generator = Generator(run.settings, run.params, run.text_tokenizer)
  captions = [f"{thing}, {style} style" for style in styles for thing in picked]
  painted = drawn(generator, captions, SEED.value, batch=64).images
  columns = {}
  for style, own in zip(styles, np.split(np.asarray(painted), len(styles))):
    records = [by_thing[thing][style] for thing in picked]
    true = [images.decode(record.images[0], size, source.fit, source.background) for record in records]
    columns[f"{style}, true"], columns[f"{style}, drawn"] = np.stack(true), own
  sheet(columns, picked).save(OUT.value)


def things(prepared: Prepared, split: str) -> dict[str, dict[str, Record]]:
  """The records of a split, by what they show and in which style."""
  found = defaultdict(dict)
  for i in range(prepared.splits[split].records):
    record = prepared.read(split, i)
    if named := CAPTION.fullmatch(record.turns[0].content[0].texts[0]):
      found[named[1]][named[2]] = record
  return found


if __name__ == "__main__":
  app.run(main)
