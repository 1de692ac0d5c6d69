"""Image tokenizers beside each other, on emoji: 64 tokens of 4,096 codes (FSQ: 4,375) a picture, steps alike.

  python -m benchmarks.tokenizers --out=runs/tokenizers
  python -m benchmarks.tokenizers --tokenizers=fsq,vq --out=runs/tokenizers      # some of them
  python -m benchmarks.tokenizers --small --out=/tmp/tokenizers                  # a few steps: does it run?

  fsq        configs/emoji.py: FSQ
  vq, ibq    its variants: codebooks that are learnt; all else as fsq, Muon and rates too
  llamagen   vq, trained after the recipe of LlamaGen's tokenizer (Sun et al. 2024, arXiv 2406.06525)
  llamagen_faster   the same at ten times its rate

Encoders and decoders are the same, parameters equal within 3 %. Of LlamaGen's recipe this is: 8 channels, codes and
codebook of unit length, squared error of the pixels, β = .25, no entropy penalty, Adam with β₂ = .95 at a rate of 1e-4
that stays, without warm-up, clipped at 1, all matrices by it. This is not: its convolutions, its batches of 128, its 40
epochs of ImageNet, LPIPS and the adversarial loss. Its code declares a weight decay and hands it to no optimizer: here
there is none. Its rate is for its batches and its steps, hence the faster row.

Measured are the unseen pictures, with the averages of the weights; a code is dead that no picture uses, seen or unseen.
Resumable: what is there is not done again. Writes OUT/NAME/figures.json and OUT/tokenizers.md, and prints the table.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from absl import app, flags

from benchmarks.binding_cells import commit
from launch import cli
from omniimage.errors import UserError
from omniimage.evaluation.held_out import held_out, in_batches, picked
from omniimage.evaluation.sheets import to_uint8
from omniimage.evaluation.suites.reconstruction import codebook_use, decibels, mean_squared_errors
from omniimage.files import write_whole
from omniimage.sampling.generate import Generator
from omniimage.systems import load_run

OUT = cli.path_flag("out", "Folder of the runs.")
NAMES = flags.DEFINE_list("tokenizers", None, "those to compare; all where it is not given")
STEPS = flags.DEFINE_integer("steps", None, "of each; those of the config where it is not given", lower_bound=1)
SMALL = flags.DEFINE_boolean("small", False, "a few steps, and some of the pictures")

LLAMAGEN = {
  "optimizer.muon_rms": 0.0,
  "optimizer.weight_decay": 0.0,
  "optimizer.final_rate": 1.0,
  "stages.tokenizer.rates.tokenizer": 1e-4,
  "stages.tokenizer.warmup_steps": 0,
}
TOKENIZERS: dict[str, tuple[str, Mapping[str, object]]] = {  # config, and changes of it
  "fsq": ("configs/emoji.py", {}),
  "vq": ("configs/emoji.py:vq", {}),
  "ibq": ("configs/emoji.py:ibq", {}),
  "llamagen": ("configs/emoji.py:vq", LLAMAGEN),
  "llamagen_faster": ("configs/emoji.py:vq", LLAMAGEN | {"stages.tokenizer.rates.tokenizer": 1e-3}),
}
CHANGES = {"schedule": ("tokenizer",), "run.sample_every": 0}
SMALL_CHANGES = {"stages.tokenizer.steps": 4, "stages.tokenizer.warmup_steps": 0, "stages.tokenizer.rows": 2}
# What compares pictures (n, H, W, 3) uint8 with what came back of them, (n,): a row each.
MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  "PSNR, dB": lambda images, made: decibels(mean_squared_errors(made, images)),
}
ALL, SMALL_NUMBER, BATCH, SEED = 2**20, 32, 64, 0


def main(_):
  out, names = Path(OUT.value or "runs/tokenizers"), NAMES.value or list(TOKENIZERS)
  for name in names:
    if name not in TOKENIZERS:
      raise UserError(f"--tokenizers: {name!r} is none of {', '.join(TOKENIZERS)}")
  rows = {}
  for name in names:
    path = out / name / "figures.json"
    if not path.exists():
      train(out / name, *TOKENIZERS[name])
      figures = {"commit": commit(), **measure(out / name, SMALL_NUMBER if SMALL.value else ALL)}
      write_whole(path, (json.dumps(figures, indent=1) + "\n").encode())
    rows[name] = json.loads(path.read_text())
    write_whole(out / "tokenizers.md", table(rows).encode())
  print(table(rows))


def train(workdir: Path, config: str, changes: Mapping[str, object]):
  steps = {"stages.tokenizer.steps": STEPS.value} if STEPS.value else {}
  changes = {**CHANGES, **steps, **changes, **(SMALL_CHANGES if SMALL.value else {})}
  values = [f"--config.{key}={value}" for key, value in changes.items()]
  subprocess.run(
    [sys.executable, "-m", "launch.train", f"--config={config}", f"--workdir={workdir}", *values], check=True
  )


def measure(workdir: Path, number: int) -> dict:
  """What a trained run's tokenizer makes of at most so many unseen pictures and of as many seen ones."""
  run = load_run(workdir)
  generator = Generator(run.settings, run.params, run.text_tokenizer)
  seen, unseen = picked(generator, "train", number, SEED).images, held_out(generator, number, SEED).images

  def through(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pictures as they came back, and their codes."""
    return in_batches(
      lambda some, _: (to_uint8(generator.reconstruct(images[some])), generator.encode(images[some])),
      np.zeros(len(images)),
      BATCH,
    )

  (made, codes), (_, others) = through(unseen), through(seen)
  size = run.settings.tokenizer.codes
  of_all = codebook_use(np.concatenate([codes, others]), size)
  return {
    "parameters": sum(leaf.size for leaf in jax.tree.leaves(run.params["tokenizer"])),
    "steps": run.step,
    "seconds": run.seconds["tokenizer"],
    "measures": {name: float(np.mean(compare(unseen, made))) for name, compare in MEASURES.items()},
    "codes": size,
    "dead": of_all["dead_codes"],
    "perplexity": of_all["perplexity"],
    "perplexity, unseen": codebook_use(codes, size)["perplexity"],
    "pictures": {"seen": len(seen), "unseen": len(unseen)},
  }


def table(rows: Mapping[str, Mapping]) -> str:
  header = [
    "tokenizer", "parameters", "steps", *(f"{name}, unseen" for name in MEASURES), "codes", "used", "dead",
    "perplexity", "perplexity, unseen", "minutes",
  ]  # fmt: skip
  lines = [f"| {' | '.join(header)} |", "| --- " * len(header) + "|"]
  for name, row in rows.items():
    used = f"{100 * (1 - row['dead'] / row['codes']):.1f} %"
    measures = [f"{row['measures'][measure]:.2f}" if measure in row["measures"] else "–" for measure in MEASURES]
    cells = [
      name, f"{row['parameters']:,}", f"{row['steps']:,}", *measures, f"{row['codes']:,}", used, f"{row['dead']:,}",
      f"{row['perplexity']:,.0f}", f"{row['perplexity, unseen']:,.0f}", f"{row['seconds'] / 60:.1f}",
    ]  # fmt: skip
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  app.run(cli.mendable(main), flags_parser=cli.parse)
