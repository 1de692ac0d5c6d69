"""How few steps a trained painter needs, by solver and time shift.

  python -m benchmarks.solvers --workdir=runs/scenes

Held-out pictures of a run of scenes are painted again from their true tokens, every time from the same noise, so that
only the path differs: from many small steps of Heun, which stand for the exact one, the distance in dB, and the objects
that the grader finds as they should be. What is compared is how often the network is asked, one more a chunk for the
keys and values of what is finished. Seconds are those of the second time.
"""

import itertools
import time

import jax
import numpy as np
from absl import app, flags

from omniimage.evaluation.held_out import held_out, open_split
from omniimage.sampling.drawing import Drawing
from omniimage.systems import load_run, open_generator, open_system

WORKDIR = flags.DEFINE_string("workdir", None, "a run of scenes whose painter is trained", required=True)
PROMPTS = flags.DEFINE_integer("prompts", 64, "held-out pictures", lower_bound=1)
STEPS = flags.DEFINE_list(
  "steps", ["1", "2", "3", "4", "6", "10", "20", "50"], "of Euler; other solvers ask about as often"
)
SHIFTS = flags.DEFINE_list("shifts", ["0.5", "1", "2"], "time shifts")
EXACT = {"solver": "heun", "diffusion_steps": 200, "time_shift": 1.0}


def main(_):
  run = load_run(WORKDIR.value)
  generator = open_generator(open_system(run.settings, run.text_tokenizer.size), run.params, run.text_tokenizer)
  examples = held_out(generator, PROMPTS.value, 0)
  codes, captions = generator.encode(examples.images), list(examples.captions)
  grader = open_split(generator, "test").tasks[0].grader
  expected = grader.grade(examples.images)

  def painted(**changes) -> tuple[np.ndarray, float]:
    paint = lambda: jax.block_until_ready(generator.repaint(captions, codes, 0, **changes))  # noqa: E731
    paint()
    begun = time.perf_counter()
    drawing: Drawing = paint()
    return np.asarray(drawing.images), time.perf_counter() - begun

  def objects(images: np.ndarray) -> float:
    scores = [grader.score(one.scene, seen) for one, seen in zip(expected, grader.grade(images))]
    return sum(sum(score.bound) for score in scores) / sum(len(score.bound) for score in scores)

  exact, _ = painted(**EXACT)
  print(f"{len(captions)} pictures; the exact path, {EXACT['diffusion_steps']} steps of heun: {objects(exact):.1%}\n")
  print("| solver | shift | steps | asked | dB from the exact | objects | seconds a picture |\n" + "| --- " * 7 + "|")
  for steps, (solver, asks), shift in itertools.product(
    map(int, STEPS.value), (("euler", 1), ("multistep", 1), ("heun", 2)), map(float, SHIFTS.value)
  ):
    own = (steps + asks - 1) // asks  # heun's last step asks once
    images, seconds = painted(solver=solver, diffusion_steps=own, time_shift=shift)
    error = max(float(np.mean(np.square(images - exact))), 1e-12)
    print(
      f"| {solver} | {shift:g} | {own} | {asks * own - asks + 1} | {10 * np.log10(4 / error):.1f} | "
      f"{objects(images):.1%} | {seconds / len(captions):.3f} |",
      flush=True,
    )


if __name__ == "__main__":
  app.run(main)
