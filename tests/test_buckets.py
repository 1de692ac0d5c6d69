"""What is kept in a bucket, whose objects cannot be renamed, added to or locked."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from omniimage import buckets, growing
from omniimage import lock as lock_module
from omniimage.bucket_lock import BucketLock
from omniimage.checkpoint import CheckpointError, Checkpoints
from omniimage.errors import UserError
from omniimage.growing import Growing
from omniimage.paths import anywhere
from omniimage.training.resuming import find_step, set_old_run_aside
from omniimage.workdir import Workdir

PLACE = "gs://bucket/run/checkpoints"
TOP = "run/checkpoints/"


def state(step: int) -> dict:
  return {"params": {"kernel": np.arange(12, dtype=np.float32) + step}, "step": np.asarray(step, np.int32)}


def save(checkpoints: Checkpoints, *steps: int):
  for step in steps:
    checkpoints.save(step, state(step), {"step": step})
  checkpoints.wait()


@pytest.fixture
def opened(bucket):
  """Makes what may write there; closed at the end."""
  anywhere(PLACE)
  with contextlib.ExitStack() as stack:
    yield lambda keep=3: stack.enter_context(contextlib.closing(Checkpoints(PLACE, keep=keep)))


def folders(bucket) -> set[str]:
  return {name.removeprefix(TOP).split("/")[0] for name in bucket.objects if name.startswith(TOP)}


def is_right(checkpoints: Checkpoints, step: int) -> bool:
  found = checkpoints.restore(step, checkpoints.shapes(step))
  return found["step"] == step and jnp.array_equal(found["params/kernel"], state(step)["params"]["kernel"])


# -------------------------------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_in_a_bucket_is_read_as_it_was_saved_and_old_ones_go(opened, bucket):
  save(opened(keep=2), 1, 2, 3)
  reader = Checkpoints(PLACE)
  assert reader.steps() == [2, 3] and folders(bucket) == {"2", "3"}
  assert reader.metadata(3) == {"step": 3} and is_right(reader, 2) and is_right(reader, 3)


@pytest.mark.parametrize("name", ["about.json", "complete.json", "state/manifest.ocdbt"])
@pytest.mark.parametrize("how", ["cut", "changed", "removed"])
def test_a_checkpoint_of_which_an_object_is_not_as_it_was_is_set_aside_whole(opened, bucket, name, how):
  save(opened(), 1, 2)
  path, before = f"{TOP}2/{name}", len([name for name in bucket.objects if name.startswith(f"{TOP}2/")])
  match how:
    case "cut":
      bucket.objects[path] = bucket.objects[path][:-1]
    case "changed":
      bucket.objects[path] = bytes([bucket.objects[path][0] ^ 1]) + bucket.objects[path][1:]
    case "removed":
      del bucket.objects[path]
  assert Checkpoints(PLACE).newest_good() == 1 and folders(bucket) == {"1", "2"}  # who only reads changes nothing
  checkpoints = opened()
  assert checkpoints.newest_good() == 1 and folders(bucket) == {"1", "damaged.2"}
  kept = len([name for name in bucket.objects if name.startswith(f"{TOP}damaged.2/")])
  assert kept == before - (how == "removed")
  save(checkpoints, 2)
  assert is_right(checkpoints, 2)


def test_what_a_save_that_was_killed_has_left_is_no_checkpoint_and_is_removed(opened, bucket):
  save(opened(), 1, 2)
  del bucket.objects[f"{TOP}2/complete.json"]
  bucket.objects[f"{TOP}saving.2"] = b""  # what is there while it is written
  assert Checkpoints(PLACE).newest_good() == 1
  checkpoints = opened()
  assert folders(bucket) == {"1"}
  save(checkpoints, 2)
  assert is_right(checkpoints, 2)


def test_a_checkpoint_that_was_complete_when_its_run_was_killed_counts(opened, bucket):
  save(opened(), 1, 2)
  bucket.objects[f"{TOP}saving.2"] = b""
  assert Checkpoints(PLACE).newest_good() == 2
  assert opened().newest_good() == 2 and folders(bucket) == {"1", "2"}


def test_a_deletion_that_was_killed_is_done_to_its_end(opened, bucket):
  save(opened(), 1, 2)
  bucket.objects[f"{TOP}deleted.1"] = b""
  del bucket.objects[f"{TOP}1/complete.json"], bucket.objects[f"{TOP}1/about.json"]
  assert Checkpoints(PLACE).newest_good(most=1) is None
  opened()
  assert folders(bucket) == {"2"}


def test_later_checkpoints_that_are_set_aside_stay_whole(opened, bucket):
  checkpoints = opened()
  save(checkpoints, 1, 2, 3)
  assert checkpoints.left_after(1) is None
  checkpoints.leave_after(1)
  assert checkpoints.steps() == [1] and checkpoints.left_after(1) == f"{PLACE}/after.1"
  aside = Checkpoints(f"{PLACE}/after.1")
  assert aside.steps() == [2, 3] and is_right(aside, 2) and is_right(aside, 3)


def test_a_bucket_that_fails_now_and_then_loses_no_checkpoint(opened, bucket):
  checkpoints, bucket.failing = opened(), 0.1
  save(checkpoints, 1)
  bucket.failing = 0.0
  assert checkpoints.newest_good() == 1 and is_right(checkpoints, 1) and folders(bucket) == {"1"}


def test_a_bucket_that_is_not_there_is_named_in_one_line(bucket):
  with pytest.raises(UserError, match="cannot write to the workdir gs://other/run: there is no such bucket"):
    Workdir("gs://other/run").create()
  with pytest.raises(CheckpointError, match="checkpoint") as why:
    save(Checkpoints("gs://other/run/checkpoints", keep=1), 1)
  assert "\n" not in str(why.value)


# ---------------------------------------------------------------------------------------------------------- beginning


def test_a_run_in_a_bucket_whose_checkpoints_are_gone_does_not_begin_again_by_itself(bucket):
  workdir = Workdir("gs://bucket/run")
  bucket.objects["run/metrics/metrics.jsonl"] = b'{"step": 1, "stage": "prior"}\n'
  before = list(bucket.objects)
  with pytest.raises(UserError, match=r"holds no checkpoint, but a run has been here: gs://bucket/run/metrics/metrics"):
    find_step(Checkpoints(workdir.checkpoints), workdir)
  assert list(bucket.objects) == before


def test_a_run_that_has_saved_nothing_begins_until_it_has(bucket):
  workdir = Workdir("gs://bucket/run")
  assert find_step(Checkpoints(workdir.checkpoints), workdir) is None
  assert "run/nothing_saved_yet" in bucket.objects
  bucket.objects["run/metrics/metrics.jsonl"] = b'{"step": 1, "stage": "prior"}\n'  # then it was killed
  assert find_step(Checkpoints(workdir.checkpoints), workdir) is None


def test_an_old_run_is_set_aside_once_and_whole_even_if_it_was_cut_short(opened, bucket, monkeypatch):
  save(opened(), 1, 2)
  for name in ("config.json", "metrics/metrics.jsonl", "bad_records.1.jsonl"):
    bucket.objects[f"run/{name}"] = name.encode()
  old = {name.removeprefix("run/"): bucket.objects[name] for name in bucket.objects}
  workdir = Workdir("gs://bucket/run")
  with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
    patched.setattr(buckets, "remove", interrupt)
    set_old_run_aside(workdir)
  for _ in range(2):
    set_old_run_aside(workdir)
  bucket.objects["run/config.json"] = b"new"
  set_old_run_aside(workdir)  # the same command, started again
  assert {name for name in bucket.objects if not name.startswith("run/old_run/")} == {"run/config.json"}
  assert all(bucket.objects[f"run/old_run/{name}"] == content for name, content in old.items())


def interrupt(*_):
  raise KeyboardInterrupt


# --------------------------------------------------------------------------------------------------------------- lock


HOLDS = """
import time
from omniimage.bucket_lock import BucketLock
from omniimage.paths import anywhere
BucketLock(anywhere("gs://bucket/run/lock")).take_alone()
print("holds", flush=True)
time.sleep(60)
"""


@pytest.fixture
def make(bucket, monkeypatch):
  """Locks of one object, let go at the end."""
  monkeypatch.setattr(lock_module, "BEAT", 0.05)
  monkeypatch.setattr(lock_module, "PATIENCE", 2.0)  # the service says times in whole seconds
  monkeypatch.setattr(lock_module, "NAMING", 0.1)
  made = []
  yield lambda: made.append(BucketLock(anywhere("gs://bucket/run/lock"))) or made[-1]
  for one in made:
    one.close()


@pytest.fixture
def elsewhere(monkeypatch):
  """Nobody is on this machine."""
  monkeypatch.setattr(BucketLock, "_lock_here", lambda self: (None, None))


def named(bucket, **changes):
  """The lock of a process on another machine, written just now."""
  facts = {"host": "far", "process": 7, "since": "2026-01-02 03:04:05 +0000", "machine": "other", "token": "1"}
  bucket.objects["run/lock"] = json.dumps({**facts, **changes}).encode() + b"\n"


def refused(lock: BucketLock) -> str:
  with pytest.raises(UserError) as why:
    lock.take_alone()
  assert "\n" not in str(why.value)
  return str(why.value)


@pytest.mark.parametrize("world", ["here", "elsewhere"])
def test_the_second_is_told_who_holds_the_lock_until_it_is_let_go(make, world, request):
  if world == "elsewhere":
    request.getfixturevalue(world)
  first, second = make(), make()
  first.take_alone()
  assert f"the workdir gs://bucket/run is in use by process {os.getpid()} on " in refused(second)
  first.check()
  first.close()
  second.take_alone()


def test_a_process_of_this_machine_that_was_killed_holds_it_no_more_at_once(make, capsys):
  process = subprocess.Popen([sys.executable, "-c", HOLDS], stdout=subprocess.PIPE)
  process.stdout.readline()
  assert f"process {process.pid}" in refused(make())
  process.send_signal(signal.SIGKILL)
  process.wait()
  make().take_alone()
  assert "to see whether" not in capsys.readouterr().err


def test_a_process_of_another_machine_is_dead_once_it_writes_its_lock_no_more(make, bucket, capsys):
  named(bucket)
  make().take_alone()
  assert "to see whether process 7 on far lives" in capsys.readouterr().err


def test_a_process_of_another_machine_that_writes_its_lock_again_lives(make, bucket):
  named(bucket)
  timer = threading.Timer(0.5, named, [bucket])
  timer.start()
  assert "in use by process 7 on far, since 2026-01-02 03:04:05" in refused(make())
  timer.join()


def test_of_two_that_begin_at_once_one_is_refused(make, elsewhere):
  locks, outcomes, together = [make(), make()], [], threading.Barrier(2)

  def take(lock):
    together.wait()
    outcomes.append(lock._try() == "")

  threads = [threading.Thread(target=take, args=[lock]) for lock in locks]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert sorted(outcomes) == [False, True]


def test_who_was_taken_over_learns_of_it_and_leaves_the_lock_alone(make, bucket):
  first = make()
  first.take_alone()
  named(bucket)
  stop = time.monotonic() + 20
  while first._problem is None and time.monotonic() < stop:
    time.sleep(0.05)
  with pytest.raises(UserError, match="in use by process 7 on far"):
    first.check()
  first.close()
  assert b"far" in bucket.objects["run/lock"]


def test_a_lock_that_has_vanished_is_named(make, bucket):
  first = make()
  first.take_alone()
  del bucket.objects["run/lock"]
  stop = time.monotonic() + 20
  while first._problem is None and time.monotonic() < stop:
    time.sleep(0.05)
  with pytest.raises(UserError, match="gs://bucket/run/lock has vanished"):
    first.check()


def test_a_write_whose_answer_was_lost_is_known_for_its_own(make, bucket, elsewhere):
  first, bucket.losing = make(), 1
  first.take_alone()
  assert not bucket.losing and json.loads(bucket.objects["run/lock"])["process"] == os.getpid()
  bucket.losing = 1  # of the thread that writes it again
  stop = time.monotonic() + 20
  while bucket.losing and time.monotonic() < stop:
    time.sleep(0.05)
  time.sleep(1.5)
  first.check()


# ------------------------------------------------------------------------------------------------------- what grows


@pytest.fixture
def grown(bucket):
  files = Growing(anywhere("gs://bucket/run"))
  yield files
  files.close()


def test_lines_are_added_to_those_that_are_in_the_bucket(grown, bucket):
  bucket.objects["run/metrics/metrics.jsonl"] = b"one\n"
  place = grown.place(anywhere("gs://bucket/run/metrics"))
  with (place / "metrics.jsonl").open("a") as file:
    file.write("two\n")
  grown.bring()
  assert bucket.objects["run/metrics/metrics.jsonl"] == b"one\ntwo\n"


def test_what_has_not_grown_is_not_written_again(grown, bucket):
  bucket.objects["run/bad_records.jsonl"] = b"one\n"
  generation = bucket.found("run/bad_records.jsonl")[1]
  place = grown.place(anywhere("gs://bucket/run/bad_records.jsonl"))
  assert place.read_bytes() == b"one\n"
  grown.bring()
  assert bucket.found("run/bad_records.jsonl")[1] == generation


def test_what_grows_comes_to_the_bucket_by_itself_in_time(bucket, monkeypatch):
  monkeypatch.setattr(growing, "SECONDS", 0.05)
  with contextlib.closing(Growing(anywhere("gs://bucket/run"))) as files:
    files.place(anywhere("gs://bucket/run/metrics")).joinpath("metrics.jsonl").write_text("one\n")
    stop = time.monotonic() + 20
    while "run/metrics/metrics.jsonl" not in bucket.objects and time.monotonic() < stop:
      time.sleep(0.05)
  assert bucket.objects["run/metrics/metrics.jsonl"] == b"one\n"


def test_on_a_disk_files_grow_where_they_are(tmp_path):
  workdir = Workdir(tmp_path)
  assert workdir.growing(workdir.metrics) == tmp_path / "metrics"
  workdir.bring()
  assert type(workdir.lock) is lock_module.Lock


def test_a_run_on_a_disk_loads_nothing_that_knows_buckets(tmp_path):
  program = f"""
import sys
from omniimage.checkpoint import Checkpoints
from omniimage.workdir import Workdir
workdir = Workdir({str(tmp_path)!r})
workdir.create()
workdir.lock.take_alone()
Checkpoints(workdir.checkpoints, keep=1).close()
workdir.close()
assert not {{"gcsfs", "aiohttp"}} & set(sys.modules)
"""
  subprocess.run([sys.executable, "-c", program], check=True)
