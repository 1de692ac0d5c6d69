"""A run of an older version is read by a newer one, or says why not."""

import copy
import json
from pathlib import Path

import pytest

from omniimage import versions
from omniimage.errors import UserError
from omniimage.settings import from_config
from omniimage.versions import (
  CHANGES,
  FORMAT,
  Change,
  checkpoint_format,
  dropped_paths,
  format_of,
  present_config,
  stamped,
  stored_paths,
)
from omniimage.workdir import Workdir
from tests import small

OLD_RUNS = sorted((Path(__file__).parent / "old_runs").glob("format_*.json"))


def test_there_is_an_old_run_of_every_format_before_this_one():
  assert [path.stem for path in OLD_RUNS] == [f"format_{n}" for n in range(FORMAT)]


@pytest.mark.parametrize("path", OLD_RUNS, ids=lambda path: path.stem)
def test_a_config_of_every_older_format_can_be_read(path, tmp_path):
  """It fails where a setting was added or renamed without a row in `CHANGES`."""
  workdir = Workdir(tmp_path)
  workdir.config.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
  settings = workdir.read_settings()
  assert settings.tokenizer.levels == (8, 5, 5, 5) and settings.prior.text_rows == 0
  assert settings.optimizer.muon_rms == 1.0, "what was set stays, though the row has a default for it"


def test_what_is_written_now_says_its_format_and_comes_back(tmp_path):
  config, workdir = small.config(), Workdir(tmp_path)
  workdir.write_config(config.to_dict())
  assert json.loads(workdir.config.read_text())["format"] == FORMAT
  assert workdir.read_settings() == from_config(config)


def test_a_setting_that_was_added_has_the_value_that_changes_nothing():
  config = small.config().to_dict()
  del config["prior"]["text_rows"], config["faults"]
  given = copy.deepcopy(config)
  read = present_config(config, 0)
  assert read["prior"]["text_rows"] == 0 and read["faults"] == {
    "spike_score": 10.0,
    "skip_spikes": False,
    "roll_back_after": 10,
    "end_hanging_after": 0,
  }
  assert config == given, "what was passed is left as it is"
  assert "text_rows" not in present_config(config, FORMAT)["prior"], "in this format it would be a fault"


def test_a_setting_of_one_source_is_added_to_no_other():
  def source(**given):
    return present_config({"data": {"source": given}}, 2)["data"]["source"]

  added = {"tasks": ["text_to_image"], "jitter": 0, "unseen": (), "validation": 0.0}
  assert source(name="scenes", grid=2) == {"name": "scenes", "grid": 2, **added}
  assert source(name="emoji") == {"name": "emoji"}


def test_a_setting_of_a_source_is_added_in_a_mixture_too():
  sources = [{"name": "emoji"}, {"name": "scenes", "tasks": ["edit"]}]
  read = present_config({"data": {"source": {"name": "mixture", "sources": sources, "weights": [1, 1]}}}, 5)
  added = {"jitter": 0, "unseen": (), "validation": 0.0}
  assert read["data"]["source"]["sources"] == [{"name": "emoji"}, {"name": "scenes", "tasks": ["edit"], **added}]


def test_a_setting_that_was_dropped_is_passed_over_and_so_are_the_arrays_of_a_state():
  assert "fuse_gathers" not in present_config({**small.config().to_dict(), "fuse_gathers": True}, 0)
  counts = {"opt_state/prior/3/count", "opt_state/prior/1/count", "params/prior/3/count"}
  assert dropped_paths(counts, 0) == {"opt_state/prior/3/count"} and not dropped_paths(counts, FORMAT)


@pytest.mark.parametrize("found", [FORMAT + 1, -1, "1", None, 0.5])
def test_a_format_of_a_later_version_is_refused_in_one_line(found, tmp_path):
  workdir = Workdir(tmp_path)
  workdir.config.write_text(json.dumps({**small.config().to_dict(), "format": found}))
  with pytest.raises(UserError, match=r"config\.json is in format .*reads formats 0 to \d+; use the version") as error:
    workdir.read_settings()
  assert "\n" not in str(error.value)


def test_no_stamp_is_format_0():
  assert format_of({}, "x") == 0 and format_of(stamped({}), "x") == FORMAT


def test_a_config_that_does_not_fit_names_its_file_and_format(tmp_path):
  config, workdir = small.config().to_dict(), Workdir(tmp_path)
  del config["seed"]
  workdir.write_config(config)
  with pytest.raises(
    UserError, match=rf"config\.json, of format {FORMAT}: config\.seed is missing; .*; the command that"
  ):
    workdir.read_settings()
  for torn in ("[1, 2]", "null", "3", "{", '"a"'):
    workdir.config.write_text(torn)
    with pytest.raises(UserError, match=r"config\.json cannot be read; the command that trained"):
      workdir.read_settings()


@pytest.fixture
def later(monkeypatch):
  """A format 3 after two more changes."""
  changes = (
    *CHANGES[:1],
    Change(
      settings={"stages.*.share": 0.5, "painter.colors": (1, 2)},
      renamed_settings={"decoder": "painter", "stages.*.rows": "stages.*.lines"},
      renamed_arrays={"params/decoder": "params/painter"},
    ),
    Change(
      renamed_settings={"painter.width": "painter.size"}, arrays=("params/painter/extra",), renamed_arrays={"opt": "o"}
    ),
  )
  monkeypatch.setattr(versions, "CHANGES", changes)
  monkeypatch.setattr(versions, "FORMAT", len(changes))


def test_changes_are_made_one_after_the_other(later):
  config = {"decoder": {"width": 8}, "stages": {"a": {"rows": 1}, "b": {"rows": 2, "share": 1}}}
  read = present_config(config, 1)
  assert read == {
    "painter": {"size": 8, "colors": (1, 2)},
    "stages": {"a": {"lines": 1, "share": 0.5}, "b": {"lines": 2, "share": 1}},
  }
  assert present_config(read, 3) == read


@pytest.mark.parametrize("written_in", range(4))
def test_a_checkpoint_from_before_turns_had_tokens_is_refused_in_one_line(written_in):
  about = {"format": written_in} if written_in else {}
  with pytest.raises(UserError, match=rf"runs/a/12, of format {written_in}, .* begins a turn.*--begin_anew") as error:
    checkpoint_format(about, "runs/a/12")
  assert "\n" not in str(error.value)
  assert checkpoint_format(stamped({}), "runs/a/12") == FORMAT


def test_arrays_are_found_where_they_were(later):
  now = ("params/painter/kernel", "params/painter/extra/bias", "params/painters", "o/count", "health/losses")
  there = ("params/decoder/kernel", "params/painters", "opt/count")
  assert stored_paths(now, there, 0) == {now[0]: there[0], now[2]: there[1], now[3]: there[2]}
  assert stored_paths(now[:1], ("params/painter/kernel",), 2) == {now[0]: now[0]}


@pytest.mark.parametrize("sealed", [True, False])
def test_checkpoints_of_the_first_layout_are_refused(tmp_path, sealed):
  (tmp_path / "12" / "about").mkdir(parents=True)
  (tmp_path / "12" / "about" / "_METADATA").touch()
  if sealed:
    (tmp_path / "12" / "complete.json").touch()
    versions.refuse_unsealed(tmp_path)
  else:
    with pytest.raises(
      UserError, match=r"12 was written before checkpoints were sealed, .* use the version that wrote it"
    ):
      versions.refuse_unsealed(tmp_path)
