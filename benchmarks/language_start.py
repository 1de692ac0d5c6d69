"""Is a picture drawn better from words if the prior begins as a language model? Emoji, from SmolLM2 and from nothing.

  python -m benchmarks.language_start --out=runs/language_start --sheet=sheet.png
  python -m benchmarks.language_start --small --out=/tmp/language_start    # a few steps: does it run?

Two runs of `configs/emoji.py`, tokenizer and prior, that differ in the prior's first parameters alone: shape, text
tokenizer, batches, optimizer (AdamW) and number of steps are the same. Graded on the concepts that neither has seen:
nats a code of the true picture after its own caption and after another concept's, the share of pictures that their own
makes the likelier, and a sheet of what is drawn, as the tokenizer renders it. Resumable: a run goes on where it was.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks.language_model import MODEL, packaged
from launch import cli
from omniimage.data import conversation
from omniimage.data.conversation import Encoded
from omniimage.data.tasks import TextToImage
from omniimage.evaluation.held_out import Examples, held_out
from omniimage.evaluation.sheets import sheet
from omniimage.interop.huggingface import LanguageModel
from omniimage.models.omni import place_codes
from omniimage.sampling.generate import Generator

OUT = cli.path_flag("out", "Folder of the runs.")
SHEET = cli.path_flag("sheet", "PNG file of what both draw; none: no sheet.")
STEPS = flags.DEFINE_integer("steps", 400, "of the prior", lower_bound=1)
EXAMPLES = flags.DEFINE_integer("examples", 256, "unseen concepts, or all there are", lower_bound=2)
SHOWN = flags.DEFINE_integer("shown", 8, "of them on the sheet", lower_bound=1)
SMALL = flags.DEFINE_boolean("small", False, "a few steps of both stages")

CHANGES = {
  "schedule": ("tokenizer", "prior"),
  "optimizer.muon_rms": 0.0,
  "stages.prior.rates.prior": 3e-4,
  "run.sample_every": 0,
  "run.checkpoint_every": 100,
  "sampling.diffusion_steps": 1,  # nobody looks at what is painted
}
SMALL_CHANGES = {f"stages.{stage}.{key}": 2 for stage in CHANGES["schedule"] for key in ("steps", "warmup_steps")}
SEED, BATCH = 0, 16
DRAWN = {"temperature": 1.0, "top_p": 0.9}  # at the config's 0 a young prior draws white paper


def main(_):
  out = Path(OUT.value or "runs/language_start")
  folder = Path(MODEL.value) if MODEL.value else out / "model"
  if not folder.exists():
    packaged(folder)
  model = LanguageModel(str(folder))
  shape = {f"prior.{key}": value for key, value in model.settings().items()}
  runs = {"language": {"prior.init": f"hf:{folder}"}, "nothing": {**shape, "data.vocabulary": str(model.tokenizer)}}
  for name, changes in runs.items():  # both before either is held in memory here
    train(out / name, changes)
  rows, columns = {}, {}
  for name in runs:
    generator = Generator.from_workdir(out / name)
    examples = held_out(generator, EXAMPLES.value, SEED)
    rows[name] = {**likelihoods(generator, examples), **logged(out / name)}
    captions = examples.captions[: SHOWN.value]
    columns[f"from {name}"] = generator(list(captions), SEED, **DRAWN).rendering
  print(table(rows))
  if SHEET.value:
    reconstructed = generator.reconstruct(examples.images[: SHOWN.value])
    sheet({"unseen": reconstructed, **columns}, captions).save(SHEET.value)


def train(workdir: Path, changes: Mapping[str, object]):
  changes = {**CHANGES, "stages.prior.steps": STEPS.value, **(SMALL_CHANGES if SMALL.value else {}), **changes}
  values = [f"--config.{key}={value}" for key, value in changes.items()]
  subprocess.run(
    [sys.executable, "-m", "launch.train", "--config=configs/emoji.py", f"--workdir={workdir}", *values], check=True
  )


def likelihoods(generator: Generator, examples: Examples) -> dict[str, float]:
  """Nats a code of the true pictures, after their captions and after those of the concept half of them further on."""
  codes = np.concatenate(
    [np.asarray(generator.encode(examples.images[i : i + BATCH])) for i in range(0, len(examples.images), BATCH)]
  )
  others = np.roll(examples.captions, len(examples.captions) // 2).tolist()
  own, foreign = (nats_a_code(generator, captions, codes) for captions in (examples.captions, others))
  return {"own": own.mean(), "foreign": foreign.mean(), "told apart": (own < foreign).mean()}


def nats_a_code(generator: Generator, captions, codes: np.ndarray) -> np.ndarray:
  """(n,) of images (n, h, w), each after its caption."""
  omni, task, size = generator.omni, TextToImage(), generator.settings.buckets[0]
  blank, rng = np.zeros((*size.pixels, 3), np.uint8), np.random.default_rng(SEED)
  encoded = [
    conversation.encode(task.turns((caption, blank), rng), generator.text_tokenizer, omni.vocabulary, size)
    for caption in captions
  ]
  longest = max(len(one.tokens) for one in encoded)

  @jax.jit
  def nats(params, tokens, positions, there, start, codes):
    mask = jnp.ones((len(tokens), 1), bool)
    tokens = place_codes(tokens, codes[:, None], start[:, None], mask, omni.vocabulary.codes)
    hidden = omni.hidden(params, tokens, positions, there)
    before = start[:, None] - 1 + jnp.arange(codes.shape[1])
    hidden = jnp.take_along_axis(hidden, before[..., None], axis=1)
    logits = omni.prior.apply({"params": params["prior"]}, hidden, "image", method="logits")
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), codes[..., None], axis=2).mean((1, 2))

  found = []
  for first in range(0, len(encoded), BATCH):
    some = [encoded[i % len(encoded)] for i in range(first, first + BATCH)]  # all of one shape
    own = [codes[i % len(codes)].ravel() for i in range(first, first + BATCH)]
    found.append(nats(generator.params, *padded(some, longest), np.stack(own)))
  return np.concatenate(found)[: len(encoded)]


def padded(encoded: list[Encoded], longest: int) -> tuple[np.ndarray, ...]:
  """tokens (B, L), positions (B, L, 3), segments (B, L), where the codes begin (B,)."""
  tokens = np.stack([np.pad(one.tokens, (0, longest - len(one.tokens))) for one in encoded])
  positions = np.stack([np.pad(one.positions, ((0, longest - len(one.tokens)), (0, 0))) for one in encoded])
  there = np.stack([np.arange(longest) < len(one.tokens) for one in encoded]).astype(np.int32)
  return tokens, positions, there, np.stack([one.image_starts[0] for one in encoded])


def logged(workdir: Path) -> dict[str, float]:
  """What the prior's loss of trained pictures was in the end, the mean of the last ten logged."""
  lines = [json.loads(line) for line in (workdir / "metrics" / "metrics.jsonl").read_text().splitlines()]
  return {"trained": float(np.mean([line["image"] for line in lines if "image" in line][-10:]))}


def table(rows: Mapping[str, Mapping[str, float]]) -> str:
  lines = [
    "| begins from | nats a code, trained | unseen, own caption | another's | own is likelier |",
    "| --- " * 5 + "|",
  ]
  for name, row in rows.items():
    shown = " | ".join(f"{row[key]:.3f}" for key in ("trained", "own", "foreign"))
    lines.append(f"| {name} | {shown} | {100 * row['told apart']:.1f} % |")
  return "\n".join(lines)


if __name__ == "__main__":
  app.run(main)
