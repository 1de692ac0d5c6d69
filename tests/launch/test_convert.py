"""`launch.convert`: a GGUF file to a folder, a run to a folder, and what is wrong said in one line."""

import json

import pytest

pytest.importorskip("safetensors", reason="the extra `interop`")

from omniimage.data.text import TextTokenizer
from omniimage.interop.huggingface import LanguageModel
from omniimage.training import loop
from omniimage.training.state import fresh_state
from omniimage.workdir import Workdir
from tests import small
from tests.launch.in_process import call


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A run that has saved its beginning."""
  path = tmp_path_factory.mktemp("run")
  trainer = loop.Trainer.prepare(small.config(**small.SHALLOW), Workdir(path))
  trainer.workdir.write_config(trainer.config)
  trainer._save(fresh_state(small.params(trainer.system)))
  trainer.close()
  trainer.workdir.lock.close()
  return path


def test_the_language_part_of_a_run_becomes_a_folder_that_a_run_can_begin_with(workdir, tmp_path, capsys):
  call("convert", f"--source={workdir}", f"--out={tmp_path / 'model'}", "--dtype=bfloat16")
  assert f"--config.prior.init=hf:{tmp_path / 'model'}" in capsys.readouterr().out
  model, s = LanguageModel(tmp_path / "model"), small.settings(**small.SHALLOW)
  assert model.settings() == {name: getattr(s.prior, name) for name in model.settings()}
  assert json.loads((tmp_path / "model" / "config.json").read_text())["dtype"] == "bfloat16"
  assert TextTokenizer.load(str(model.tokenizer)).encode("a red star") == small.text_tokenizer().encode("a red star")


@pytest.mark.parametrize(
  "arguments, said",
  [
    ([], "give --source=MODEL.gguf, or --source=WORKDIR, and --out=FOLDER"),
    (["--source={}/nowhere", "--out={}/new"], "nowhere does not exist"),
    (["--source={}", "--out={}/new"], "is not a run"),
    (["--source={}/text.gguf", "--out={}/new"], "cannot be read as a GGUF file"),
    (["--source={}", "--out={}"], "is there already"),
  ],
)
def test_what_cannot_be_is_one_line(arguments, said, tmp_path, capsys):
  pytest.importorskip("gguf", reason="the extra `interop`")
  (tmp_path / "text.gguf").write_text("this is no model")
  with pytest.raises(SystemExit):
    call("convert", *(argument.format(tmp_path) for argument in arguments))
  error = capsys.readouterr().err.strip()
  assert said in error and error.startswith("error: ") and "\n" not in error
