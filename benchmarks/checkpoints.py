"""How long a save holds up the training: the time `save` blocks, beside the time until the checkpoint is complete.

  python -m benchmarks.checkpoints --directory=/tmp/checkpoints --parameters=300

The state is what training saves: parameters, their averages and two moments, float32, 16 bytes a parameter. Each save
is made once with nothing else to do and once while steps go on that donate the state: what a copy spares `save` by
leaving it to the next step shows there.
"""

import resource
import time
from pathlib import Path
from statistics import median

import jax
from absl import app, flags, logging

from omniimage.checkpoint import Checkpoints

DIRECTORY = flags.DEFINE_string("directory", None, "checkpoints are written here and deleted again", required=True)
PARAMETERS = flags.DEFINE_integer("parameters", 300, "size of the model, in millions", lower_bound=1)
SAVES = flags.DEFINE_integer("saves", 2, "saves of either kind", lower_bound=1)
WIDTH = 1024


def main(_):
  logging.set_verbosity(logging.WARNING)  # Orbax tells much
  state, step = a_state(PARAMETERS.value * 10**6), jax.jit(_step, donate_argnums=0)
  checkpoints = Checkpoints(DIRECTORY.value, keep=1)
  checkpoints.reserve(state)
  checkpoints.wait()  # as while a step compiles
  seconds = []
  for _ in range(5):
    state, took = timed(step, state)
    seconds.append(took)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  print(f"state {size / 1e9:.2f} GB in {len(jax.tree.leaves(state))} arrays; a step takes {median(seconds):.2f} s")
  print("| | save blocks s | save takes s | share | first step s | median step s |\n" + "| --- " * 6 + "|")
  for count in range(2 * SAVES.value):
    busy = count % 2 == 1
    state, row = measure(checkpoints, count, state, step, busy)
    blocked, taken = row[:2]
    cells = [f"{blocked:.2f}", f"{taken:.1f}", f"{blocked / taken:.1%}", *(f"{value:.2f}" for value in row[2:])]
    print(f"| {'while training' if busy else 'alone'} | {' | '.join(cells)} |", flush=True)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  print(f"peak memory {peak / 1e9:.1f} GB")
  start = time.perf_counter()
  wrong = checkpoints.damage(checkpoints.latest())
  print(f"verified in {time.perf_counter() - start:.1f} s: {wrong or 'undamaged'}")
  checkpoints.drop_after(-1)
  checkpoints.close()


def measure(checkpoints: Checkpoints, count: int, state, step, busy: bool):
  """The state, and seconds: save blocks, save takes, the first step after it and, if `busy`, the median during it."""
  start = time.perf_counter()
  checkpoints.save(count, state, {"count": count})
  blocked = time.perf_counter() - start
  marker, seconds = Path(DIRECTORY.value) / str(count) / "complete.json", []
  while not marker.exists():
    if busy:
      state, took = timed(step, state)
      seconds.append(took)
    else:
      time.sleep(0.01)
    checkpoints.check()
  taken = time.perf_counter() - start
  checkpoints.wait()
  if busy:
    return state, (blocked, taken, seconds[0], median(seconds))
  state, took = timed(step, state)
  return state, (blocked, taken, took)


def timed(step, state):
  start = time.perf_counter()
  state = jax.block_until_ready(step(state))
  return state, time.perf_counter() - start


def a_state(parameters: int):
  """Stacked layers of a transformer and, for the rest of its size, an embedding."""
  layers = parameters * 3 // 4 // (12 * WIDTH**2)
  shapes = {"attention": (layers, WIDTH, 4 * WIDTH), "mlp": (layers, WIDTH, 8 * WIDTH), "norm": (layers, WIDTH)}
  rest = parameters - layers * (12 * WIDTH**2 + WIDTH)
  shapes["embedding"] = (rest // WIDTH, WIDTH)

  @jax.jit
  def fill(key):
    return {
      part: {name: jax.random.normal(jax.random.fold_in(key, index), shape) for name, shape in shapes.items()}
      for index, part in enumerate(("params", "ema", "mu", "nu"))
    }

  return jax.block_until_ready(fill(jax.random.key(0)))


def _step(state):
  return jax.tree.map(lambda leaf: leaf * 0.9999, state)


if __name__ == "__main__":
  app.run(main)
