"""Where a run goes on: from its newest whole checkpoint, from one that is asked for, or from the beginning.

What has saved something never begins again by itself. Asked to, it sets the old run aside, and deletes nothing.
"""

import sys
from pathlib import Path

import jax

from omniimage import bucket_folders, buckets
from omniimage.checkpoint import Checkpoints, NoneWhole
from omniimage.distributed.agree import first_says
from omniimage.errors import CheckpointError, UserError
from omniimage.workdir import Workdir

# In this order, so that a move cut short leaves nothing that could be begun anew without being asked.
MOVED = (
  "checkpoints",
  "config.json",
  "tokenizer.json",
  "report.json",
  "report.html",
  "samples",
  "metrics",
  "logs",
  "bad_records*.jsonl",
)


def find_step(checkpoints: Checkpoints, workdir: Workdir, from_step: int | None = None) -> int | None:
  """The step of the checkpoint to go on from; None where the run has saved nothing yet. UserError where it has, but
  nothing whole is left of that. With `from_step`, that one, or the newest made since `leave_after` was done for it."""
  try:
    if from_step is None or checkpoints.left_after(from_step):
      step = checkpoints.newest_good()
    else:
      step = _checked(checkpoints, from_step)
  except NoneWhole as error:
    raise UserError(f"{error}; nothing was changed. {_advice(workdir)}") from None
  if step is None:
    _begin(workdir)
  else:
    first_says(lambda: workdir.unsaved.unlink(missing_ok=True))
  return step


def leave_later(checkpoints: Checkpoints, from_step: int):
  """Sets aside what a run that goes on from an earlier step makes again, once, and says where it is."""
  before = checkpoints.left_after(from_step)
  if not before:
    checkpoints.leave_after(from_step)
  place = checkpoints.left_after(from_step)
  if before:
    _say(f"--from_step={from_step} has been done, what came later is in {place}; rename that to go back once more")
  else:
    _say(f"the checkpoints of later steps are now in {place}; the same command again goes on from the newest")


def step_to_go_back_to(checkpoints: Checkpoints, workdir: Workdir, most: int) -> int | None:
  """As `find_step`, for a run that has to go back to step `most` or before. None, its beginning, only where it has
  never saved, or where no update since the beginning has counted."""
  why = f"the run has to go back to step {most} or before, since later updates were not finite"
  try:
    step = checkpoints.newest_good(most)
  except NoneWhole as error:
    raise UserError(f"{why}, and {error}. {_advice(workdir)}") from None
  if step is None and most > 0 and not first_says(workdir.unsaved.exists):
    raise UserError(
      f"{why}, and {workdir.checkpoints} has no checkpoint of such a step; it has {checkpoints.steps()}. "
      f"{_advice(workdir)}"
    )
  if step is None:  # what was saved since is dropped, so nothing is
    first_says(workdir.unsaved.touch)
  return step


def set_old_run_aside(workdir: Workdir):
  """Moves all that a workdir holds of a run into `old_run`, once: where that is there already, nothing is done, so that
  a command that begins anew can be started again like any other."""
  done = workdir.old_run
  moving = done if workdir.remote else done.with_name(f"{done.name}.moving")

  def move() -> bool:
    try:
      return _move_in_bucket(workdir) if workdir.remote else _move(workdir, moving)
    except Exception as error:
      if why := workdir.trouble(error):
        raise UserError(f"the old run in {workdir.path} cannot be moved to {moving}: {why}") from None
      raise

  if first_says(move):
    _say(f"begins anew; what was in the workdir before is in {done}")
  else:
    _say(f"has begun anew before, the old run is in {done}; rename that to begin anew once more")


def _move(workdir: Workdir, moving: Path) -> bool:
  if workdir.old_run.exists():
    return False
  moving.mkdir(parents=True, exist_ok=True)
  workdir.unsaved.unlink(missing_ok=True)
  for source in [found for pattern in MOVED for found in workdir.path.glob(pattern)]:
    target = moving / source.name
    if not (target.exists() and _is_empty(source)):
      source.rename(target)
  moving.rename(workdir.old_run)
  return True


def _move_in_bucket(workdir: Workdir) -> bool:
  """By copying, each thing before it is deleted; an object says that all is there. A deletion cut short leaves what is
  copied again, and no run that could be begun anew: its checkpoints go first, and what else there is tells of it."""
  done = workdir.old_run / bucket_folders.MOVED
  if done.exists():
    return False
  workdir.unsaved.unlink(missing_ok=True)
  for source in [found for pattern in MOVED for found in workdir.path.glob(pattern)]:
    buckets.copy(source, workdir.old_run / source.name)
    buckets.remove(source)
  done.write_bytes(b"")
  return True


def _checked(checkpoints: Checkpoints, step: int) -> int:
  if wrong := checkpoints.damage(step):
    raise CheckpointError(f"--from_step={step}: that checkpoint is damaged, {wrong}; it has {checkpoints.steps()}")
  return step


def _begin(workdir: Workdir):
  def begin() -> str:
    traces = [] if workdir.unsaved.exists() else _traces(workdir)
    if not traces:
      workdir.unsaved.touch()
    return " and ".join(traces)

  if traces := first_says(begin):
    raise UserError(
      f"{workdir.checkpoints} holds no checkpoint, but a run has been here: {traces}; nothing was changed. "
      f"{_advice(workdir)}"
    )


def _traces(workdir: Workdir) -> list[str]:
  """What only a run leaves behind that may have saved."""
  lines, sheets = workdir.metrics / "metrics.jsonl", workdir.samples.glob("*.png")
  aside = [path for kind in ("damaged.*", "after.*") for path in workdir.checkpoints.glob(kind)]
  found = [lines] if lines.exists() and lines.read_bytes() else []
  return [str(path) for path in (*found, *sorted(sheets)[:1], *sorted(aside)[:1])]


def _advice(workdir: Workdir) -> str:
  return (
    f"Put a whole checkpoint back into {workdir.checkpoints} and start the same command (--from_step=N goes on from an "
    f"earlier one than the newest), or begin anew with --begin_anew, which moves the old run to {workdir.old_run}"
  )


def _is_empty(path: Path) -> bool:
  return path.is_dir() and not any(path.iterdir())


def _say(line: str):
  if jax.process_index() == 0:
    print(line, file=sys.stderr, flush=True)
