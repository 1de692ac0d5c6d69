"""What each part of the demo is worth: variants of configs/scenes.py at the same budget, on the same 256 prompts.

  python -m benchmarks.ablations --out=runs/ablations

Tokenizer and prior are trained once; each variant goes on from a copy of that run. The variant without a joint stage
gives the seconds that this one takes to the decoder. Guidance changes the drawing only. Resumable: what is there is not
done again. Prints a table; about an hour on two cores.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from absl import app, flags

OUT = flags.DEFINE_string("out", "runs/ablations", "folder of the runs")
JOINT_IN_DECODER_STEPS = flags.DEFINE_integer("joint_in_decoder_steps", 100, "decoder steps in a joint stage's time")

CONFIG = "configs/scenes.py"
FIRST = ("tokenizer", "prior")
CHUNKS = {"1 chunk": 0, "2 chunks": 2, "4 chunks": 1}  # patch rows a chunk, of four
GUIDANCE = {
  "prior's guidance 1.5": ("--guidance=1.5",),
  "prior's guidance 3": ("--guidance=3",),
  "token guidance 1.5": ("--token_guidance=1.5",),
  "text guidance 1.5": ("--text_guidance=1.5",),
  "temperature 1": ("--temperature=1",),
}


def main(_):
  out = Path(OUT.value)
  train(out / "first", f"--config.schedule={FIRST}")
  rows = {}
  for name, chunk_rows in CHUNKS.items():
    workdir = out / name.replace(" ", "_")
    continue_from(out / "first", workdir)
    train(workdir, f"--config.decoder.chunk_rows=({chunk_rows},)")
    rows[name] = evaluate(workdir)
  whole, separate = out / "2_chunks", out / "without_joint"
  continue_from(out / "first", separate)
  schedule = (*FIRST, "decoder")
  train(separate, f"--config.schedule={schedule}", f"--config.stages.decoder.steps={decoder_steps(whole)}")
  rows["2 chunks, without the joint stage"] = evaluate(separate)
  for name, changes in GUIDANCE.items():
    rows[f"2 chunks, {name}"] = evaluate(whole, *changes, out=whole / name.replace(" ", "_"))
  print(table(rows))


def decoder_steps(workdir: Path) -> int:
  """Steps of the decoder stage that take as long as a run's decoder and joint stages together."""
  config = json.loads((workdir / "config.json").read_text())
  return config["stages"]["decoder"]["steps"] + JOINT_IN_DECODER_STEPS.value


def continue_from(source: Path, target: Path):
  if not target.exists():
    shutil.copytree(source, target)


def train(workdir: Path, *changes: str):
  run("launch.train", f"--config={CONFIG}", f"--workdir={workdir}", *changes)


def evaluate(workdir: Path, *changes: str, out: Path | None = None) -> dict:
  out = out or workdir
  if not (out / "report.json").exists():
    run("launch.evaluate", f"--workdir={workdir}", "--suite=all", "--prompts=256", f"--out={out}", *changes)
  return json.loads((out / "report.json").read_text())


def run(module: str, *args: str):
  subprocess.run([sys.executable, "-m", module, *args], check=True)


def table(rows: dict[str, dict]) -> str:
  """Objects bound and scenes right of each variant, for sampled and true tokens, painted and as the tokenizer renders
  them."""
  kinds = {"painted": None, "rendered": "rendering", "true, painted": "true_tokens", "true, rendered": "reconstruction"}
  lines = [f"| objects / scenes, % | {' | '.join(kinds)} | seams |", "| --- " * (len(kinds) + 2) + "|"]
  for name, report in rows.items():
    binding = report["binding"]
    cells = [binding if kind is None else binding[kind] for kind in kinds.values()]
    shown = [f"{100 * cell['objects']:.1f} / {100 * cell['scenes']:.1f}" for cell in cells]
    lines.append(f"| {name} | {' | '.join(shown)} | {report['seams']['ratio']:.2f} |")
  return "\n".join(lines)


if __name__ == "__main__":
  app.run(main)
