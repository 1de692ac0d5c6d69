"""A workdir holds all that a run needs, and names nothing outside of it."""

import json
import re
from pathlib import Path

import pytest

import omniimage
from omniimage.data.text import BUILTIN, BUILTIN_SIZE, TextTokenizer
from omniimage.errors import UserError
from omniimage.versions import FORMAT
from omniimage.workdir import Workdir, check_vocabulary
from tests import small


@pytest.fixture
def workdir(tmp_path):
  made = Workdir(tmp_path / "run")
  made.create()
  return made


@pytest.fixture
def vocabulary(tmp_path):
  copy = tmp_path / "own.json"
  copy.write_text(BUILTIN.read_text(encoding="utf-8"), encoding="utf-8")
  return copy


def test_a_run_keeps_its_vocabulary_and_needs_the_file_it_came_from_no_more(workdir, vocabulary, caplog):
  workdir.keep_vocabulary(str(vocabulary))
  known = workdir.open_vocabulary(str(vocabulary)).fingerprint
  vocabulary.unlink()
  settings = small.settings(**{"data.vocabulary": "/nowhere/tokenizer.json"})
  assert workdir.load_vocabulary(settings).size == BUILTIN_SIZE
  assert workdir.open_vocabulary(str(vocabulary)).fingerprint == known
  assert f"own.json' is gone; goes on with the run's own copy, {workdir.vocabulary}" in caplog.text
  workdir.keep_vocabulary(str(vocabulary))


def test_a_vocabulary_is_compared_by_its_content(workdir, vocabulary, tmp_path, monkeypatch):
  workdir.keep_vocabulary(str(vocabulary))
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path))
  known = workdir.open_vocabulary("own.json").fingerprint
  assert workdir.open_vocabulary("~/own.json").fingerprint == known
  description = json.loads(vocabulary.read_text(encoding="utf-8"))
  vocabulary.write_text(json.dumps(description, indent=1), encoding="utf-8")
  assert workdir.open_vocabulary(str(vocabulary)).fingerprint == known
  description["model"]["merges"].pop()
  vocabulary.write_text(json.dumps(description), encoding="utf-8")
  with pytest.raises(UserError, match=r"own\.json' is not the one that .*run was trained with"):
    workdir.open_vocabulary(str(vocabulary))


def test_a_damaged_copy_of_the_vocabulary_is_written_again(workdir, vocabulary):
  workdir.vocabulary.write_bytes(b"{")
  workdir.open_vocabulary(str(vocabulary))
  workdir.keep_vocabulary(str(vocabulary))
  assert workdir.vocabulary.read_bytes() == vocabulary.read_bytes()


def test_a_checkpoint_knows_its_vocabulary_whatever_it_is_called(workdir, vocabulary):
  shipped, own = small.settings(), small.settings(**{"data.vocabulary": str(vocabulary)})
  known = TextTokenizer.load()
  about = {"config": {"data": {"vocabulary": "builtin"}}, "vocabulary": known.fingerprint}
  check_vocabulary(about, shipped, known, "runs/a")
  check_vocabulary(about, own, TextTokenizer.load(str(vocabulary)), "runs/a")
  description = json.loads(vocabulary.read_text(encoding="utf-8"))
  description["model"]["merges"].pop()
  vocabulary.write_text(json.dumps(description), encoding="utf-8")
  other = TextTokenizer.load(str(vocabulary))
  for said in (about, {"config": about["config"]}):  # and of format 0, by name
    with pytest.raises(
      UserError, match=r"runs/a was trained with another text vocabulary, 'builtin' there and data\.v"
    ):
      check_vocabulary(said, own, other, "runs/a")


def test_what_is_written_into_a_workdir_is_whole_or_not_there(workdir, monkeypatch):
  workdir.write_config({"seed": 1})
  monkeypatch.setattr(Path, "rename", lambda self, other: (_ for _ in ()).throw(KeyboardInterrupt))
  with pytest.raises(KeyboardInterrupt):
    workdir.write_config({"seed": 2})
  assert json.loads(workdir.config.read_text()) == {"format": FORMAT, "seed": 1}


def test_nothing_that_is_loaded_is_code():
  """No pickle, in whatever disguise, but for published weights, by an unpickler that knows NumPy's arrays alone
  (tests/interop/test_lpips_weights.py)."""
  loads = re.compile(
    r"import (pickle|dill|cloudpickle|shelve|joblib|marshal)|allow_pickle|\b(eval|exec)\(|yaml\.load\("
  )
  root = Path(omniimage.__file__).parents[1]
  for folder in ("omniimage", "launch", "configs"):
    for file in (root / folder).rglob("*.py"):
      if file.name == "lpips_weights.py":
        continue
      assert not loads.search(file.read_text(encoding="utf-8")), file
