"""A run as a folder to give away: what it holds, that it is the same model, what is wrong with it said in a line."""

import json
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("safetensors", reason="the extra `interop`")

from safetensors.numpy import load_file, save_file

from omniimage import versions
from omniimage.errors import UserError
from omniimage.sampling.generate import Generator
from omniimage.systems import load_run
from omniimage.workdir import Workdir
from tests import small
from tests.launch.in_process import call
from tests.launch.random_run import random_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  path = tmp_path_factory.mktemp("runs") / "mine"
  random_run(path, **small.SHALLOW, **{"prior.grid_embedding": True})
  return path


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
  out = tmp_path_factory.mktemp("models") / "given"
  call("export", f"--workdir={run}", f"--out={out}", "--licence=apache-2.0")
  return out


@pytest.fixture
def copy(exported, tmp_path):
  return Path(shutil.copytree(exported, tmp_path / "copy"))


def test_it_is_the_same_model_and_draws_the_same(run, exported):
  ours, theirs = load_run(run), load_run(exported)
  jax.tree.map(np.testing.assert_array_equal, ours.params, theirs.params)
  assert (ours.settings, ours.step, dict(ours.seconds)) == (theirs.settings, theirs.step, theirs.seconds)
  drawings = [make(path)(["a red star"], seed=3) for make, path in (
    (Generator.from_workdir, run), (Generator.from_pretrained, exported)
  )]  # fmt: skip
  jax.tree.map(np.testing.assert_array_equal, *drawings)


def test_the_folder_needs_nothing_else_and_says_what_it_is(exported):
  assert {path.name for path in exported.iterdir()} == {
    "README.md", "config.json", "model.safetensors", "pretrained.json", "tokenizer.json"
  }  # fmt: skip
  card = (exported / "README.md").read_text()
  assert card.startswith("---\nlibrary_name: omniimage\n") and "license: apache-2.0" in card
  assert "# given" in card and "scenes: drawn by omniimage itself" in card and "Not evaluated." in card
  assert all(path.stat().st_mode & 0o044 == 0o044 for path in exported.iterdir())
  assert set(load_file(exported / "model.safetensors")) > {"prior.grid.out.kernel", "prior.embed.text"}


def test_figures_and_the_last_sheet_go_into_the_card(run, tmp_path):
  other = Path(shutil.copytree(run, tmp_path / "run"))
  (other / "samples").mkdir(exist_ok=True)
  (other / "samples" / "final.png").write_bytes(b"a picture")
  figures = {"right": 0.5, "by_kind": {"is there": 0.5}, "prompts_by_kind": {"is there": 8}, "prompts": 8}
  conditions = {"step": 1, "seed": 0, "asked": 8}
  (other / "report.json").write_text(json.dumps({"questions": figures | conditions, "seconds": {}}))
  call("export", f"--workdir={other}", f"--out={tmp_path / 'out'}")
  card = (tmp_path / "out" / "README.md").read_text()
  assert "![What it draws](samples.png)" in card and (tmp_path / "out" / "samples.png").read_bytes() == b"a picture"
  assert "50.0 %" in card and "license:" not in card and "Nobody has said" in card


def test_in_sixteen_bits_it_is_half_as_large_and_nearly_the_same(run, exported, tmp_path):
  call("export", f"--workdir={run}", f"--out={tmp_path / 'half'}", "--dtype=bfloat16")
  sizes = [(path / "model.safetensors").stat().st_size for path in (exported, tmp_path / "half")]
  assert 0.5 < sizes[1] / sizes[0] < 0.55
  rounded = jax.tree.map(lambda x: np.asarray(x).astype(ml_dtypes.bfloat16).astype(x.dtype), load_run(run).params)
  jax.tree.map(np.testing.assert_array_equal, rounded, load_run(tmp_path / "half").params)


def test_a_folder_of_an_older_format_is_read(copy):
  config = json.loads((copy / "config.json").read_text())
  del config["prior"]["grid_embedding"]  # a setting that format 6 did not have
  config[versions.KEY] = 6
  tensors = load_file(copy / "model.safetensors")
  tensors.pop("prior.grid.out.kernel")
  save_file(tensors, copy / "model.safetensors")
  (copy / "config.json").write_text(json.dumps(config))
  assert not load_run(copy).settings.prior.grid_embedding


def without(name):
  def change(folder: Path):
    tensors = load_file(folder / "model.safetensors")
    del tensors[name]
    save_file(tensors, folder / "model.safetensors")

  return change


def of_another_size(folder: Path):
  config = json.loads((folder / "config.json").read_text())
  config["prior"]["mlp_width"] = 32
  (folder / "config.json").write_text(json.dumps(config))


def with_one_more(folder: Path):
  save_file({**load_file(folder / "model.safetensors"), "other": np.zeros(1)}, folder / "model.safetensors")


def of_other_words(folder: Path):
  about = json.loads((folder / "pretrained.json").read_text())
  (folder / "pretrained.json").write_text(json.dumps({**about, "vocabulary": "another"}))


@pytest.mark.parametrize("change, said", [
  (without("prior.norm.scale"), r"has no tensor prior\.norm\.scale \(32,\)"),
  (of_another_size, r"the tensor prior\.layers\.mlp\.\w+\.kernel is \(1, .*; its config\.json says"),
  (with_one_more, "the tensor other is of no part of the model"),
  (of_other_words, "another text vocabulary"),
  (lambda folder: (folder / "pretrained.json").write_text("{"), r"pretrained\.json cannot be read; export"),
  (lambda folder: (folder / "model.safetensors").unlink(), r"has no model\.safetensors"),
  (lambda folder: (folder / "model.safetensors").write_bytes(b"torn"), "cannot be read"),
])  # fmt: skip
def test_what_is_wrong_with_a_folder_is_one_line(copy, change, said):
  change(copy)
  with pytest.raises(UserError, match=said) as raised:
    load_run(copy)
  assert "\n" not in str(raised.value)


@pytest.mark.parametrize("args, said", [
  (["--workdir={run}"], "give --workdir=RUN and --out=FOLDER"),
  (["--workdir={run}", "--out={run}"], "is there already"),
  (["--workdir={run}/nowhere", "--out={new}"], "is not a run"),
  (["--workdir={run}", "--out={new}", "--licence=a\nb"], "--licence is one line"),
])  # fmt: skip
def test_a_command_that_cannot_be_is_one_line_and_writes_nothing(run, tmp_path, capsys, args, said):
  new = tmp_path / "new"
  with pytest.raises(SystemExit):
    call("export", *(arg.format(run=run, new=new) for arg in args))
  error = capsys.readouterr().err.strip()
  assert error.startswith("error: ") and said in error and "\n" not in error and not new.exists()


def test_nobody_trains_over_it(exported):
  from omniimage.training.loop import Trainer

  before = sorted(exported.rglob("*"))
  with pytest.raises(UserError, match="is an exported model, which training would replace"):
    Trainer.prepare(small.config(**small.SHALLOW), Workdir(exported))
  assert sorted(exported.rglob("*")) == before


def test_the_card_names_each_data_set_and_what_it_may_be_used_for(tmp_path):
  from omniimage.evaluation.model_card import learnt_from

  for name, licence in (("photos", "CC0"), ("texts", "")):
    (tmp_path / name).mkdir()
    (tmp_path / name / "dataset.json").write_text(json.dumps({"name": name, "licence": licence}))
  both = {"name": "records", "path": f"{tmp_path}/photos:0.7,{tmp_path}/texts:0.3"}
  mixed = {"name": "mixture", "sources": {"own": both, "gone": {"name": "records", "path": "/nowhere"}}}
  expected = ["photos: licence CC0", "records: licence not given", "texts: licence not given"]
  assert learnt_from(mixed) == expected and str(tmp_path) not in str(learnt_from(mixed))
