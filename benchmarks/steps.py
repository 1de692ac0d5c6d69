"""Where a training step's time goes, stage by stage: steps a second, and the share of each kind of work.

  python -m benchmarks.steps --config=configs/scenes.py
  python -m benchmarks.steps --config=configs/scenes.py --before=DIR   # another checkout, in alternation with this one

Times are the best of several rounds, each in a process of its own, on a machine that does nothing else. Another
checkout is measured by its own copy of this file, which knows its code; it needs one that takes --child. Shares come
from a profile of a few steps: an operation counts from its start until it is done, by the module it belongs to. What
no operation covers is dispatch; waiting for the next batch is input.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import mean, median

from absl import app, flags

from launch import config_file

CONFIG = config_file.define("the run whose stages are measured")
BEFORE = flags.DEFINE_string("before", None, "another checkout of the project, measured in alternation")
STAGES = flags.DEFINE_list("stages", None, "stages to measure; all of the schedule by default")
STEPS = flags.DEFINE_integer("steps", 40, "timed steps a stage and round", lower_bound=5)
ROUNDS = flags.DEFINE_integer("rounds", 3, "processes that measure each checkout", lower_bound=1)
CHILD = flags.DEFINE_string("child", None, "write the figures of one round here as JSON")

KINDS = ("matrix products", "attention", "softmax", "optimizer", "norms and the rest", "input", "dispatch")
WARM, PROFILED = 3, 5  # steps before and after the timed ones


def main(_):
  if CHILD.value:
    Path(CHILD.value).write_text(json.dumps(measure(CONFIG.value)))
    return
  here = Path(__file__).resolve().parents[1]
  checkouts = {"after" if BEFORE.value else "": here}
  if BEFORE.value:
    checkouts = {"before": Path(BEFORE.value).resolve(), **checkouts}
  rounds = defaultdict(list)
  for _ in range(ROUNDS.value):
    for name, checkout in checkouts.items():
      rounds[name].append(_in_process(checkout))
  best = {name: _best(figures) for name, figures in rounds.items()}
  print(table(best))


def measure(config) -> dict:
  """{stage: {"seconds", "images", "shares"}} of each stage's step, from fresh parameters."""
  import jax

  from omniimage.training.loop import Trainer
  from omniimage.workdir import Workdir

  with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer.prepare(config, Workdir(folder))
    settings = trainer.settings
    params = jax.device_get(jax.jit(trainer.system.init)(jax.random.key(settings.seed)))
    stages = STAGES.value or settings.schedule
    return {name: measure_stage(trainer, params, name, Path(folder) / "trace" / name) for name in stages}


def measure_stage(trainer, params, name: str, trace: Path) -> dict:
  import jax

  from omniimage.distributed.mesh import batch_sharding, global_batch
  from omniimage.distributed.sharding import state_shardings
  from omniimage.systems.system import rules_of
  from omniimage.training.optimizer import make_optimizer
  from omniimage.training.state import enter_stage, fresh_state
  from omniimage.training.step import make_train_step

  stage, sharding = trainer.settings.stages[name], batch_sharding(trainer.mesh)
  state = enter_stage(fresh_state(params), stage.moves, make_optimizer(trainer.settings.optimizer, stage))
  batches = trainer.batches.iterate(0, WARM + STEPS.value + PROFILED, stage.rows)
  with jax.set_mesh(trainer.mesh):
    state = jax.device_put(state, state_shardings(trainer.mesh, rules_of(trainer.system), state))
    first = global_batch(trainer.batches.batch(0, stage.rows), sharding)
    step = jax.jit(make_train_step(trainer.system, stage, 0), donate_argnums=0).lower(state, first).compile()

    def steps(count: int) -> dict:
      """Medians of seconds and images a step, the waiting for batches among them, and the seconds of all."""
      nonlocal state
      seconds, waited, images = [], [], []
      for _ in range(count):
        began = time.perf_counter()
        batch = next(batches)[1]
        waited.append(time.perf_counter() - began)
        state, _ = jax.block_until_ready(step(state, global_batch(batch, sharding)))
        seconds.append(time.perf_counter() - began)
        images.append(int(batch["image_mask"].sum()))
      return {"seconds": median(seconds), "images": mean(images), "waited": sum(waited), "all": sum(seconds)}

    steps(WARM)
    timed = steps(STEPS.value)
    with jax.profiler.trace(str(trace)):
      profiled = steps(PROFILED)
  shares = profile_shares(next(trace.rglob("*.xplane.pb")), step.as_text(), profiled["all"], profiled["waited"])
  return {"seconds": timed["seconds"], "images": timed["images"], "shares": shares}


def profile_shares(path: Path, hlo: str, wall: float, waiting: float) -> dict[str, float]:
  """Shares of the wall time by kind. Operations that run at once share the time in which they do."""
  from jax.profiler import ProfileData

  modules = dict(re.findall(r"%?([\w.\-]+) = [^\n]*?metadata=\{op_name=\"([^\"]*)\"", hlo))
  starts, spans = {}, []
  for plane in ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      for event in line.events:
        stats = dict(event.stats)
        if "hlo_op" in stats:
          starts[stats.get("_p")] = len(spans)
          spans.append([event.start_ns, event.start_ns + event.duration_ns, stats["hlo_op"]])
        elif event.name.startswith("end: ") and stats.get("_c") in starts:  # of an operation that ended elsewhere
          span = spans[starts[stats["_c"]]]
          span[1] = max(span[1], event.start_ns + event.duration_ns)
  seconds = _shared(spans, lambda op: kind_of(op, modules.get(op, "")))
  seconds["input"] = waiting
  seconds["dispatch"] = max(wall - sum(seconds.values()), 0.0)
  total = sum(seconds.values())
  return {kind: seconds[kind] / total for kind in KINDS}


def _shared(spans: list, kind) -> Counter:
  """Seconds by kind; where n operations run, each gets an nth. A loop's own span gives way to what runs inside it."""
  edges = [(start, 1, op) for start, _, op in spans] + [(stop, -1, op) for _, stop, op in spans]
  running, seconds, last = Counter(), Counter(), 0
  for now, change, op in sorted(edges, key=lambda edge: edge[0]):
    inner = [name for name in running.elements() if not name.startswith(("while", "call", "conditional"))]
    for name in inner:
      seconds[kind(name)] += (now - last) / len(inner) / 1e9
    running[op] += change
    if not running[op]:
      del running[op]
    last = now
  return seconds


def kind_of(op: str, module: str) -> str:
  """The kind of an operation, by its name and the path of the module it belongs to."""
  inside = re.search(r"jvp|transpose\(|/[A-Z]\w+/", module)
  if not inside:
    return "optimizer"
  if "attention" in module and not re.search(r"/(query|key|value|out|\w*norm)/", module):
    return "attention"
  if "dot" in op or "dot_general" in module or "matmul" in module:
    return "matrix products"
  if "jvp()/while" in module:  # the loop over chunks of the sequence in the cross-entropy
    return "softmax"
  return "norms and the rest"


def table(figures: dict[str, dict]) -> str:
  lines = [f"| stage | steps/s | images/s | {' | '.join(KINDS)} |", "| --- " * (3 + len(KINDS)) + "|"]
  first, *others = figures
  for stage in figures[first]:
    for name in figures:
      own = figures[name][stage]
      shares = " | ".join(f"{own['shares'][kind]:.0%}" for kind in KINDS)
      title = f"{stage} {name}".strip()
      lines.append(f"| {title} | {1 / own['seconds']:.2f} | {own['images'] / own['seconds']:.0f} | {shares} |")
    for name in others:
      speed = [figures[key][stage]["images"] / figures[key][stage]["seconds"] for key in (first, name)]
      lines.append(f"| {stage}, images/s {name} ÷ {first} | | {speed[1] / speed[0]:.2f} |" + " |" * len(KINDS))
  return "\n".join(lines)


def _best(rounds: list[dict]) -> dict:
  """Of each stage, the round that had it fastest."""
  return {stage: min((figures[stage] for figures in rounds), key=lambda own: own["seconds"]) for stage in rounds[0]}


def _in_process(checkout: Path) -> dict:
  """The figures of one round of a checkout. UsageError where it has no such benchmark."""
  program = checkout / "benchmarks" / "steps.py"
  if not program.is_file() or "child" not in program.read_text():
    raise app.UsageError(f"{checkout} cannot be measured: it has no benchmarks/steps.py with --child")
  with tempfile.TemporaryDirectory() as folder:
    out = Path(folder) / "figures.json"
    command = [sys.executable, str(program), *_for_child(sys.argv[1:]), f"--child={out}"]
    subprocess.run(command, check=True, cwd=checkout, env={**os.environ, "PYTHONPATH": str(checkout)})
    return json.loads(out.read_text())


def _for_child(arguments: list[str]) -> list[str]:
  """The flags without those that say which checkouts to measure, and how often: --NAME=VALUE or --NAME VALUE."""
  kept, skip = [], False
  for argument in arguments:
    if not skip and not re.match(r"--?(before|rounds)\b", argument):
      kept.append(argument)
    skip = not skip and re.fullmatch(r"--?(before|rounds)", argument) is not None
  return kept


if __name__ == "__main__":
  app.run(main)
