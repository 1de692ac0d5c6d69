"""Tasks in processes of this machine. Who dies over one is noticed, and the task is named."""

import contextlib
import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait

from omniimage.errors import UserError
from omniimage.prepare.tasks import Task, Tell, Work

OFTEN = 0.2  # seconds between two messages of how far a process is


def run(work: Work, tasks: Sequence[Task], workers: int, tell: Tell, done: Callable[[Task], None]):
  """Does the tasks, begun in their order, in so many processes; in this one where that is enough.

  Raises:
    UserError: that of a task; or if a process was killed, with the task it was at.
    RuntimeError: with the traceback, for any other exception of a task.
  """
  if min(workers, len(tasks)) <= 1:
    for task in tasks:
      work(task, tell)
      done(task)
    return
  waiting = deque(tasks)
  crew = [_Worker(work) for _ in range(min(workers, len(tasks)))]
  try:
    for worker in crew:
      worker.begin(waiting.popleft())
    while busy := {worker.connection: worker for worker in crew if worker.task is not None}:
      for connection in wait(list(busy)):
        worker = busy[connection]
        rows, task = worker.heard()
        tell(rows)
        if task is not None:
          done(task)
          if waiting:
            worker.begin(waiting.popleft())
  finally:
    for worker in crew:
      worker.end()


class _Worker:
  def __init__(self, work: Work):
    context = multiprocessing.get_context("spawn")  # what is forked may hold locks of threads
    self.task: Task | None = None
    self.connection, theirs = context.Pipe()
    self._process = context.Process(target=_serve, args=(theirs, work), daemon=True)
    _start_deaf(self._process)
    theirs.close()  # so that their death is heard

  def begin(self, task: Task):
    self.task = task
    with contextlib.suppress(OSError):  # dead, as will be heard
      self.connection.send(task)

  def heard(self) -> tuple[int, Task | None]:
    """(rows that were done, the task if it has been). Raises what the task has raised."""
    try:
      what, said = self.connection.recv()
    except (EOFError, OSError):
      self._process.join()
      raise UserError(_death(self.task, self._process.exitcode)) from None
    match what:
      case "rows":
        return said, None
      case "done":
        task, self.task = self.task, None
        return said, task
      case "mistake":
        raise UserError(said)
    raise RuntimeError(f"{self.task.name}:\n{said}")

  def end(self):
    self._process.kill()
    self._process.join()
    self.connection.close()


def _start_deaf(process: multiprocessing.Process):
  """Ctrl-C of a terminal reaches all its processes. It is for the parent, whose end is that of its workers."""
  resource_tracker.ensure_running()  # which, when it starts with the first process, would undo this
  before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # which the new process inherits
  try:
    process.start()
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(task: Task, code: int | None) -> str:
  again = "what is done is kept: run the same again"
  if code == -signal.SIGKILL:
    return (
      f"the process at {task.name} was killed, as a system does that is short of memory; {again}, with fewer --workers"
    )
  how = f"was ended by {signal.Signals(-code).name}" if code and code < 0 else f"ended with code {code}"
  return f"the process at {task.name} {how}; {again}, and if it happens again, take {task.name} out of the source"


def _serve(connection: Connection, work: Work):
  """A worker's life: tasks in, what became of them out."""
  threading.Thread(target=_end_with_parent, daemon=True).start()
  while True:
    try:
      task = connection.recv()
    except EOFError:
      return
    counted = _Counted(connection)
    try:
      work(task, counted)
      said = "done", counted.rows
    except UserError as error:
      said = "mistake", str(error)
    except MemoryError:
      said = "mistake", f"{task.name}: the memory is full; run the same again, with fewer --workers"
    except Exception:
      said = "failed", traceback.format_exc()
    connection.send(said)


class _Counted:
  """Tells the parent of rows, now and then."""

  def __init__(self, connection: Connection):
    self._connection, self._told, self.rows = connection, time.monotonic(), 0

  def __call__(self, rows: int):
    self.rows += rows
    if time.monotonic() - self._told > OFTEN:
      self._connection.send(("rows", self.rows))
      self._told, self.rows = time.monotonic(), 0


def _end_with_parent():
  """However that ends: else a worker would still write when the same command runs again."""
  multiprocessing.parent_process().join()
  os._exit(1)
