"""What a disk or a workdir does to a run is one line; what our own code does is not hidden."""

import errno
import os
import shutil

import pytest

from omniimage.errors import CheckpointError, UserError
from omniimage.training.disk_errors import disk_errors
from omniimage.workdir import Workdir


@pytest.fixture
def workdir(tmp_path):
  made = Workdir(tmp_path / "run")
  made.create()
  made.lock.take()
  yield made
  made.lock.close()


@pytest.mark.parametrize("how", ["deleted", "moved"])
@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "No such file"), CheckpointError("Orbax's text")])
def test_a_workdir_that_has_vanished_is_the_reason_whatever_it_broke(workdir, how, error):
  shutil.rmtree(workdir.path) if how == "deleted" else workdir.path.rename(f"{workdir.path}2")
  with pytest.raises(UserError, match=f"the workdir {workdir.path} has vanished") as why, disk_errors(workdir):
    raise error
  assert why.value.exit_code == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_is_one_line(workdir, number):
  said = f"cannot write to the workdir {workdir.path}: {os.strerror(number)}; mend that"
  with pytest.raises(UserError, match=said), disk_errors(workdir):
    raise OSError(number, os.strerror(number))


def test_a_folder_of_the_run_that_has_vanished_is_named(workdir):
  workdir.metrics.rmdir()
  said = r"No such file or directory \(.*run/metrics/faults.jsonl\); mend that"
  with pytest.raises(UserError, match=said), disk_errors(workdir):
    (workdir.metrics / "faults.jsonl").open("a")


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "", "/elsewhere/file"), CheckpointError("its own")])
def test_other_errors_stay_what_they_are(workdir, error):
  with pytest.raises(type(error)) as why, disk_errors(workdir):
    raise error
  assert why.value is error


def test_a_bucket_that_is_gone_is_one_line(bucket):
  workdir = Workdir("gs://gone/run")
  said = "the workdir gs://gone/run: there is no such bucket or object; mend that"
  with pytest.raises(UserError, match=said), disk_errors(workdir):
    (workdir.path / "config.json").write_bytes(b"")
