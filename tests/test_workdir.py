"""A workdir holds all that a run needs, and names nothing outside of it."""

import json
import re
from pathlib import Path

import pytest

import omniimage
from omniimage.data.text import BUILTIN, BUILTIN_SIZE
from omniimage.errors import UserError
from omniimage.workdir import Workdir
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


def test_a_run_keeps_its_vocabulary_and_needs_the_file_it_came_from_no_more(workdir, vocabulary):
  workdir.keep_vocabulary(str(vocabulary))
  vocabulary.unlink()
  settings = small.settings(**{"data.vocabulary": "/nowhere/tokenizer.json"})
  assert workdir.load_vocabulary(settings).size == BUILTIN_SIZE


def test_a_vocabulary_that_has_changed_is_refused(workdir, vocabulary):
  workdir.keep_vocabulary(str(vocabulary))
  workdir.keep_vocabulary(str(vocabulary))
  vocabulary.write_text(vocabulary.read_text(encoding="utf-8") + "\n", encoding="utf-8")
  with pytest.raises(UserError, match=r"own\.json' is not the one that .*run was trained with"):
    workdir.keep_vocabulary(str(vocabulary))


def test_what_is_written_into_a_workdir_is_whole_or_not_there(workdir, monkeypatch):
  workdir.write_config({"seed": 1})
  monkeypatch.setattr(Path, "rename", lambda self, other: (_ for _ in ()).throw(KeyboardInterrupt))
  with pytest.raises(KeyboardInterrupt):
    workdir.write_config({"seed": 2})
  assert json.loads(workdir.config.read_text()) == {"seed": 1}


def test_nothing_that_is_loaded_is_code():
  """No pickle, in whatever disguise."""
  loads = re.compile(
    r"import (pickle|dill|cloudpickle|shelve|joblib|marshal)|allow_pickle|\b(eval|exec)\(|yaml\.load\("
  )
  root = Path(omniimage.__file__).parents[1]
  for folder in ("omniimage", "launch", "configs"):
    for file in (root / folder).rglob("*.py"):
      assert not loads.search(file.read_text(encoding="utf-8")), file
