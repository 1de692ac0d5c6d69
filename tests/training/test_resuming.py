"""A run never begins again by itself."""

import json
from pathlib import Path

import jax.numpy as jnp
import pytest

from omniimage.checkpoint import CheckpointError, Checkpoints
from omniimage.errors import UserError
from omniimage.training.metrics import MetricsWriter
from omniimage.training.resuming import find_step, leave_later, set_old_run_aside, step_to_go_back_to
from omniimage.workdir import Workdir


class Run:
  """A workdir in which a run has saved some steps, and logged each."""

  def __init__(self, path: Path, steps: tuple[int, ...]):
    self.workdir = Workdir(path)
    self.workdir.create()
    self.checkpoints = self.opened()
    assert find_step(self.checkpoints, self.workdir) is None
    self.save(*steps)

  def opened(self) -> Checkpoints:
    return Checkpoints(self.workdir.checkpoints, 5, 0, lambda: self.workdir.unsaved.unlink(missing_ok=True))

  def save(self, *steps: int):
    for step in steps:
      self.checkpoints.save(step, {"step": jnp.int32(step)}, {})
      self.checkpoints.wait()
      with (self.workdir.metrics / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": step}) + "\n")

  def find(self, from_step: int | None = None) -> int | None:
    return find_step(self.opened(), self.workdir, from_step)

  def logged(self, name: str = "metrics.jsonl") -> list[int]:
    return [json.loads(line)["step"] for line in (self.workdir.metrics / name).read_text().splitlines()]

  def files(self) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(self.workdir.path.rglob("*")) if path.is_file()}


@pytest.fixture
def run(tmp_path):
  made = Run(tmp_path / "run", (2, 4, 6))
  yield made
  made.checkpoints.close()


def test_where_no_checkpoint_is_whole_the_command_stops_and_names_each(run):
  for step, file in ((2, "about.json"), (4, "complete.json"), (6, "state/_METADATA")):
    (run.workdir.checkpoints / str(step) / file).unlink()
  before = run.files()
  for _ in range(2):
    with pytest.raises(UserError) as error:
      run.find()
    message = str(error.value)
    assert "\n" not in message and "--begin_anew" in message and "--from_step=N" in message
    for fault in (
      "step 2: about.json is missing",
      "step 4: complete.json is missing",
      "step 6: state/_METADATA is mis",
    ):
      assert fault in message
  assert run.files() == before


@pytest.mark.parametrize("gone", ["checkpoints", "checkpoints/*"])
def test_where_the_checkpoints_have_vanished_the_command_stops_and_changes_nothing(run, gone):
  for path in run.workdir.path.glob(gone):
    path.rename(run.workdir.path.with_name(f"elsewhere-{path.name}"))
  run.workdir.create()
  before = run.files()
  with pytest.raises(
    UserError, match=r"holds no checkpoint, but a run has been here: .*metrics\.jsonl; .*--begin_anew"
  ):
    run.find()
  assert run.files() == before


@pytest.mark.parametrize("trace", ["samples/000004.png", "checkpoints/damaged.4/about.json"])
def test_what_only_a_run_leaves_behind_tells_that_there_was_one(tmp_path, trace):
  workdir = Workdir(tmp_path)
  workdir.create()
  (tmp_path / trace).parent.mkdir(exist_ok=True)
  (tmp_path / trace).touch()
  with pytest.raises(UserError, match="a run has been here"):
    find_step(Checkpoints(workdir.checkpoints, 1), workdir)


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again_and_keeps_what_it_logged(tmp_path):
  run = Run(tmp_path, ())
  (run.workdir.metrics / "metrics.jsonl").write_text('{"step": 1, "stage": "prior"}\n{"step": 2, "stage": "prior"}\n')
  assert run.find() is None
  writer = MetricsWriter(run.workdir.metrics)
  writer.begin(0)
  writer.close()
  assert run.logged() == [] and run.logged("dropped.jsonl") == [1, 2]
  run.save(3)
  assert run.find() == 3 and not run.workdir.unsaved.exists()


def test_a_run_begun_anew_on_purpose_sets_the_old_one_aside_once(run):
  (run.workdir.path / "report.json").write_text("{}")
  old = {path.relative_to(run.workdir.path): content for path, content in run.files().items()}
  for _ in range(2):  # interrupted before it has saved, and started again
    set_old_run_aside(run.workdir)
    run.workdir.create()
    assert run.find() is None
  set_aside = {path.relative_to(run.workdir.old_run) for path in run.workdir.old_run.rglob("*") if path.is_file()}
  assert set_aside == old.keys() and not (run.workdir.path / "report.json").exists()
  run.save(2)
  set_old_run_aside(run.workdir)
  assert run.find() == 2


def test_a_move_of_the_old_run_that_is_cut_short_is_finished_and_nothing_begins_in_between(run, monkeypatch):
  rename, done = Path.rename, []

  def once(self, target):
    if done:
      raise KeyboardInterrupt
    done.append(self.name)
    return rename(self, target)

  with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
    patched.setattr(Path, "rename", once)
    set_old_run_aside(run.workdir)
  run.workdir.create()
  with pytest.raises(UserError, match="a run has been here"):
    run.find()
  set_old_run_aside(run.workdir)
  assert {path.name for path in run.workdir.old_run.iterdir()} == {"checkpoints", "metrics", "samples"}
  assert Checkpoints(run.workdir.old_run / "checkpoints").steps() == [2, 4, 6]


def test_a_run_goes_on_from_an_earlier_checkpoint_once(run):
  assert run.find(from_step=4) == 4
  leave_later(run.checkpoints, 4)
  assert run.checkpoints.steps() == [2, 4]
  assert Checkpoints(run.workdir.checkpoints / "after.4").steps() == [6]
  run.save(5)
  assert run.find(from_step=4) == 5, "the same command started again"
  with pytest.raises(CheckpointError, match=r"no checkpoint of step 3; it has \[2, 4, 5\]"):
    run.find(from_step=3)
  (run.workdir.checkpoints / "2" / "about.json").unlink()
  with pytest.raises(CheckpointError, match=r"--from_step=2: that checkpoint is damaged, about\.json is missing"):
    run.find(from_step=2)


def test_going_back_never_leads_to_the_beginning_of_a_run_that_has_saved(run):
  assert step_to_go_back_to(run.checkpoints, run.workdir, 5) == 4
  with pytest.raises(UserError, match=r"has to go back to step 1 .* no checkpoint of such a step; it has \[2, 4, 6\]"):
    step_to_go_back_to(run.checkpoints, run.workdir, 1)
  (run.workdir.checkpoints / "2" / "about.json").unlink()
  with pytest.raises(UserError, match=r"has to go back to step 3 .*step 2: about\.json is missing"):
    step_to_go_back_to(run.checkpoints, run.workdir, 3)
  assert step_to_go_back_to(run.checkpoints, run.workdir, 0) is None, "no update has counted"


def test_going_back_leads_to_the_beginning_of_a_run_that_has_not_saved(tmp_path):
  run = Run(tmp_path, ())
  assert step_to_go_back_to(run.checkpoints, run.workdir, 3) is None
