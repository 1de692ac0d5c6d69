"""Whatever number a flag is given: one line that names it, or work whose numbers all have a meaning."""

import contextlib
import io
import math
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import scenes
from omniimage.ranges import SEEDS
from omniimage.settings import from_config
from omniimage.workdir import Run
from tests import numbers_to_try, small
from tests.launch import in_process

TINY = "--config=configs/scenes.py:tiny"
RUN = Run(small.settings(), {}, small.text_tokenizer(), step=1)
KEYS = [".".join(path) for path, _ in numbers_to_try.leaves(scenes.get_config("tiny").to_dict())]
DRAWS = (
  "temperature", "top_k", "top_p", "min_p", "guidance", "token_guidance", "text_guidance", "guidance_from",
  "guidance_until", "time_shift", "diffusion_steps", "seed",
)  # fmt: skip
FLAGS = {
  "sample": (*DRAWS, "num_images", "scale"),
  "serve": (*(name for name in DRAWS if name != "seed"), "port", "batch", "waiting"),
  "evaluate": (*DRAWS, "prompts", "install_seconds"),
  "plan": ("num_slices", *(f"config.{key}" for key in KEYS)),
  "train": tuple(f"config.{key}" for key in KEYS),
  "prepare": ("held_out", "workers", "shard_bytes"),
}


class Began(Exception):
  """A command's work, with what it was given: `settings`, and other numbers by their name."""


def _begin(**given):
  raise Began(given)


WORK = {  # of the commands: the first thing that would take long, or need a trained run
  "omniimage.systems.load_run": lambda workdir, *_: RUN,
  "omniimage.systems.open_generator": lambda system, *_: (
    lambda prompts, seed, **_: _begin(settings=system.settings, images=len(prompts), seed=seed)
  ),
  "omniimage.evaluation.evaluate.evaluate": lambda run, workdir, suite, out, prompts, seed, *_, **__: _begin(
    settings=run.settings, prompts=prompts, seed=seed, **run.seconds
  ),
  "omniimage.serving.listening.bound": lambda host, port: None,
  "omniimage.serving.studio.Studio.open": lambda run, settings, rows: _begin(settings=settings, rows=rows),
  "omniimage.plan.plan": lambda config, topology, slices, *_, **__: _begin(settings=from_config(config), slices=slices),
  "omniimage.training.loop.train": lambda config, workdir, *_, **__: _begin(settings=from_config(config)),
  "omniimage.prepare.prepare.prepare": lambda request, say: _begin(
    settings=RUN.settings, held_out=request.held_out, workers=request.workers, shard_bytes=request.shard_bytes
  ),
  "launch.processes.joined": contextlib.nullcontext,
}


def outcome(command: str, *args) -> dict | str:
  """What the command's work is given, or the line with which it refuses."""
  with contextlib.ExitStack() as stack:
    for name, stand_in in WORK.items():
      stack.enter_context(mock.patch(name, stand_in))
    stderr = stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
    try:
      in_process.call(command, *args)
    except Began as began:
      return began.args[0]
    except SystemExit as end:
      assert end.code == 2
  said = stderr.getvalue()
  assert said.startswith("error: ") and said.count("\n") == 1 and said.endswith("\n"), said
  return said


@pytest.mark.parametrize("command", FLAGS)
def test_a_number_in_a_flag_is_refused_in_a_line_or_has_a_meaning(command, tmp_path_factory):
  folder = tmp_path_factory.mktemp(command)
  required = {
    "sample": ("--workdir=run", "--prompt=a star", f"--out={folder}/star.png"),
    "serve": ("--workdir=run",),
    "evaluate": ("--workdir=run", f"--out={folder}"),
    "plan": (TINY, "--topology=v5e:2x4", f"--out={folder}/plan.json"),
    "train": (TINY, "--workdir=run"),
    "prepare": ("--source=pictures", f"--out={folder}"),
  }[command]

  assert isinstance(outcome(command, *required), dict)  # otherwise nothing below would show anything

  @settings(numbers_to_try.REPEATABLE, max_examples=100)
  @given(st.sampled_from(FLAGS[command]), numbers_to_try.words)
  def holds(flag, word):
    came = outcome(command, *required, f"--{flag}={word}")
    if isinstance(came, str):
      group, _, name = flag.rpartition(".")
      assert name in came or group.rpartition(".")[2] in came, came
      return
    numbers_to_try.check_all(came.pop("settings"))
    assert all(math.isfinite(number) and number >= 0 for number in came.values()), came
    assert came.get("seed", 0) in SEEDS

  holds()
