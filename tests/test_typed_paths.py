"""One place turns what was typed into a path, for every command and every file."""

import json
import os
from pathlib import Path

import pytest

from omniimage import buckets
from omniimage.errors import UserError
from omniimage.files import write_whole
from omniimage.paths import absolute, anywhere, writing
from omniimage.versions import FORMAT
from omniimage.workdir import Workdir


def test_a_path_is_from_the_root_and_knows_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(tmp_path)
  for typed in ("~/run", "run", "./run", Path("run"), f"{tmp_path}/other/../run"):
    assert absolute(typed) == tmp_path / "run"
  assert absolute("a ~/run [2]") == tmp_path / "a ~" / "run [2]"


def test_what_is_above_a_link_is_where_it_leads(tmp_path):
  (tmp_path / "far" / "away").mkdir(parents=True)
  (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
  assert absolute(f"{tmp_path}/link/../run") == tmp_path / "far" / "run"
  assert absolute(f"{tmp_path}/link/run") == tmp_path / "link" / "run"


@pytest.mark.parametrize("typed", ["gs://bucket/run", "s3://b", "file:///tmp/run", "https://host/run", "gs:///run"])
def test_what_is_no_path_of_the_file_system_is_refused_in_one_line(typed):
  with pytest.raises(UserError, match=r"is no path: \w+:// cannot be read or written here; mount it"):
    absolute(typed)
  if not typed.startswith("gs://"):
    with pytest.raises(UserError, match="is no path"):
      anywhere(typed)


def test_where_a_bucket_will_do_its_folder_is_a_path_as_any_other(bucket):
  run = anywhere("gs://bucket//runs/a/")
  assert str(run) == "gs://bucket/runs/a" and str(run / "config.json") == "gs://bucket/runs/a/config.json"
  assert run.name == "a" and anywhere("/tmp/run") == Path("/tmp/run")


@pytest.mark.parametrize(
  "typed", ["gs://", "gs://bucket", "gs:///run", "gs://Bucket/run", "gs://b/../run", "gs://bu/a*"]
)
def test_what_names_no_folder_of_a_bucket_is_refused_in_one_line(typed):
  with pytest.raises(UserError, match="give gs://BUCKET/FOLDER") as why:
    anywhere(typed)
  assert "\n" not in str(why.value)


def test_without_what_reads_buckets_one_line_says_what_to_install(monkeypatch):
  monkeypatch.setattr(buckets.importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError, match=r"not installed; pip install 'omniimage\[gcs\]'"):
    anywhere("gs://bucket/run")


@pytest.mark.parametrize("typed", ["", "a\0b", "a\udcffb", "~nobody-has-this-name/run"])
def test_what_cannot_be_a_path_is_refused(typed):
  with pytest.raises(UserError, match=r"is no path|leads nowhere"):
    absolute(typed)


def test_a_relative_path_from_a_folder_that_was_deleted_is_refused(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "gone").mkdir()
  os.chdir(tmp_path / "gone")
  (tmp_path / "gone").rmdir()
  with pytest.raises(UserError, match="leads nowhere: No such file or directory; give a path from /"):
    absolute("run")


def test_a_run_has_all_its_folders_in_one_place(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(tmp_path)
  workdir = Workdir("~/run")
  workdir.create()
  workdir.write_config({"seed": 0})
  assert {path.name for path in tmp_path.iterdir()} == {"run"}
  assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"format": FORMAT, "seed": 0}


def test_what_cannot_be_written_at_the_end_is_one_line(tmp_path):
  with pytest.raises(UserError, match="cannot be written: No such file or directory"), writing(tmp_path / "a.png"):
    write_whole(tmp_path / "gone" / "a.png", b"")


def test_writing_to_a_device_leaves_it_one(tmp_path):
  os.mkfifo(tmp_path / "pipe")
  reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
  write_whole(tmp_path / "pipe", b"text")
  assert os.read(reader, 9) == b"text" and (tmp_path / "pipe").is_fifo()
  os.close(reader)
