"""Bad input: one line on stderr that names what to change, exit code 2, and nothing compiled."""

import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import launch
from launch import cli
from omniimage import versions
from omniimage import workdir as workdir_module
from omniimage.checkpoint import Checkpoints
from omniimage.data.text import BUILTIN
from omniimage.settings import from_config
from omniimage.training.optimizer import make_optimizer
from omniimage.training.state import enter_stage, fresh_state
from omniimage.workdir import Run, Workdir
from tests import small
from tests.launch import in_process

ROOT = Path(launch.__file__).parents[1]
TINY = "--config=configs/scenes.py:tiny"
ENVIRONMENT = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}


@pytest.fixture
def compiled():
  """Names of what was compiled while a test ran."""
  seen = []
  listener = lambda event, _, **__: seen.append(event) if "backend_compile" in event else None  # noqa: E731
  jax.monitoring.register_event_duration_secs_listener(listener)
  yield seen
  jax.monitoring.unregister_event_duration_listener(listener)


@pytest.fixture
def refused(capsys, compiled):
  """Runs a command that must refuse its input, in this process, and returns what it printed."""

  def run(command: str, *args) -> str:
    with pytest.raises(SystemExit) as stopped:
      in_process.call(command, *args)
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1 and not printed.out
    assert not compiled
    return printed.err

  return run


def run_of(path: Path, written_in: int = versions.FORMAT) -> Path:
  """The workdir of a run with one checkpoint, in its first stage, whose parameters are all zero."""
  config, workdir = small.config(), Workdir(path)
  workdir.create()
  workdir.write_config(config.to_dict())
  settings = from_config(config)
  stage = settings.stages["tokenizer"]

  def init(key):
    state = fresh_state(small.omni(settings).init(key))
    return enter_stage(state, stage.moves, make_optimizer(settings.optimizer, stage))

  shapes = jax.eval_shape(init, jax.random.key(0))
  checkpoints = Checkpoints(workdir.checkpoints, keep=1)
  config = json.loads((workdir.config).read_text())
  about = {versions.KEY: written_in, "seconds": {}, "wall": {}, "config": config}
  checkpoints.save(4, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), about)
  checkpoints.close()
  return workdir.path


@pytest.fixture(scope="module")
def run_of_zeros(tmp_path_factory):
  return run_of(tmp_path_factory.mktemp("run"))


@pytest.mark.parametrize(
  "given, said",
  [
    (["--config.sed=1"], "--config.sed=1 is not a setting of this config; did you mean seed?"),
    (["--config.tokenizer.widht=64"], "did you mean width?"),
    (["--config.stages.piror.steps=1"], "did you mean prior?"),
    (["--config.colour=1"], "--config.colour=1 is not a setting of this config"),
    (["--wordkir=x"], "'wordkir'. Did you mean: workdir"),
    (["--config.seed=abc"], "--config.seed=abc: expected a whole number"),
    (["--config.seed=1.5"], "--config.seed=1.5: expected a whole number"),
    (["--config.data.drop_text=x"], "--config.data.drop_text=x: expected a number"),
    (["--config.prior.qk_norm=maybe"], "--config.prior.qk_norm=maybe: expected true or false"),
    (["--config.stages.prior=3"], "--config.stages.prior=3: this is a group of settings"),
    (["--config.tokenizer.levels=3"], "tokenizer.levels=(3,): give two channels or more"),
    (["--config.tokenizer.levels=(8, x)"], "config.tokenizer.levels"),
    (["--config.schedule=priors"], "schedule names 'priors'; the stages are"),
    (["--config.data.image_size=36"], "data.image_size=36 must be a multiple of decoder.pixels_per_token=8"),
    (["--config.decoder.patch_size=3"], "must be a multiple of decoder.patch_size=3"),
    (["--config.mesh.data=3", "--config.mesh.fsdp=3"], "mesh data=3 × fsdp=3"),
    (["--config.mesh.data=16"], "takes 16 devices, there are 8"),
    (["--config.stages.prior.rows=12"], "stages.prior.rows=12 must be a multiple of"),
    (["--config.data.source.name=emojis"], "config.data.source.name='emojis' is not a data source"),
    (["--config.data.vocabulary=no.json"], "data.vocabulary"),
    (["--config.data.sequence_length=24"], "data.sequence_length"),
    (
      ["--config.data.image_size=16", "--config.data.source.grid=3"],
      "data.image_size=16 is too small for data.source.grid=3",
    ),
    (["--config.run.keep_checkpoints=0"], "config.run.keep_checkpoints=0 must be from 1 to"),
    (["--config.run.checkpoint_every=0"], "config.run.checkpoint_every=0 must be from 1 to"),
    (["--config.prior.width=0"], "config.prior.width=0 must be from 1 to"),
    (["--config.stages.prior.rows=0"], "config.stages.prior.rows=0 must be from 1 to"),
    (["--config.decoder.time_mean=nan"], "config.decoder.time_mean=nan must be from -30 to 30"),
    (
      ["--config.stages.tokenizer.rates.tokenizer=inf"],
      "config.stages.tokenizer.rates.tokenizer=inf must be from 0 to 100",
    ),
    (["--config.tokenizer.levels=(1000,1000,1000,1000)"], "a codebook has at most 1,048,576"),
    (["--config.seed=18446744073709551616"], "config.seed=18446744073709551616 must be from 0 to"),
    ([f"--config.seed={'9' * 5000}"], "expected a whole number, of fewer digits"),
    (["prior"], "'prior' is not a flag"),
  ],
)
def test_a_wrong_config_is_named(refused, tmp_path, given, said):
  assert said in refused("train", TINY, f"--workdir={tmp_path / 'run'}", *given)


@pytest.mark.parametrize(
  "config, said",
  [
    ("configs/scenes.py:huge", "configs/scenes.py has the variants demo and tiny, not 'huge'"),
    ("configs/scene.py", "--config=configs/scene.py: there is no such file"),
    ("configs", "--config=configs: there is no such file"),
    ("", "there is no such file"),
  ],
)
def test_a_wrong_config_file_or_variant_is_named(refused, tmp_path, config, said):
  assert said in refused("train", f"--config={config}", f"--workdir={tmp_path}")


def test_training_says_which_flags_it_needs(refused):
  assert "give --config=configs/scenes.py and --workdir=runs/scenes" in refused("train")


def test_a_workdir_that_cannot_be_written_is_named(refused, tmp_path):
  (tmp_path / "file").touch()
  for workdir in (tmp_path / "file", tmp_path / "file" / "run"):
    assert f"cannot write to the workdir {workdir}" in refused("train", TINY, f"--workdir={workdir}")


@pytest.mark.parametrize(
  "command, given, flag",
  [
    ("sample", ["--prompt=a star", "--workdir=/tmp/never"], "out"),
    ("evaluate", ["--workdir=/tmp/never"], "lpips"),
    ("export", ["--workdir=/tmp/never"], "out"),
    ("plan", [TINY, "--topology=v5e:2x4"], "out"),
    ("plan", [TINY, "--topology=v5e:2x4", "--out=/tmp/plan.json"], "hlo"),
  ],
)
def test_a_bucket_is_no_path_where_only_a_disk_will_do(refused, tmp_path, monkeypatch, command, given, flag):
  monkeypatch.chdir(tmp_path)
  given = [argument.replace("configs/", f"{ROOT}/configs/") for argument in given]
  assert f"--{flag}=gs://b/run: 'gs://b/run' is no path" in refused(command, *given, f"--{flag}=gs://b/run")
  assert f"--{flag}=: '' is no path" in refused(command, *given, f"--{flag}=")
  assert not list(tmp_path.iterdir())


def test_a_config_file_in_the_home_folder_is_found(refused, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  (tmp_path / "own.py").write_text("def get_config(variant):\n  raise ValueError(f'reached {variant}')\n")
  for config in (["--config=~/own.py:tiny"], ["--config", "~/own.py:tiny"]):
    assert "reached tiny" in refused("train", *config, "--workdir=~/run")


def test_a_checkpoint_of_another_model_is_named(refused, run_of_zeros, tmp_path):
  said = refused("train", TINY, f"--workdir={run_of_zeros}")
  assert str(run_of_zeros) in said and "was trained with another model: " in said
  config = json.loads((run_of_zeros / "config.json").read_text())
  config["prior"]["mlp_width"] = 128
  other = Workdir(tmp_path)
  other.config.write_text(json.dumps(config))
  other.checkpoints.symlink_to(run_of_zeros / "checkpoints")
  said = refused("sample", f"--workdir={tmp_path}", "--prompt=a star", f"--out={tmp_path}/star.png")
  assert "holds another model" in said and "prior/layers/mlp" in said


def test_a_schedule_or_a_vocabulary_that_does_not_fit_a_run_is_named(refused, run_of_zeros, tmp_path):
  """And nothing of the run is changed."""
  own = (tmp_path / "own.py", tmp_path / "own.json")
  own[0].write_text("from tests import small\n\n\ndef get_config():\n  return small.config()\n")
  own[1].write_text(BUILTIN.read_text(encoding="utf-8").replace('"ignore_merges":false', '"ignore_merges":true'))
  train = ("train", f"--config={own[0]}", f"--workdir={run_of_zeros}")
  assert "the schedule no longer fits step 4" in refused(*train, "--config.stages.tokenizer.steps=3")
  assert "with another text vocabulary" in refused(*train, f"--config.data.vocabulary={own[1]}")
  assert not Workdir(run_of_zeros).vocabulary.exists()


def test_a_run_from_before_turns_had_tokens_is_named_by_every_command(refused, tmp_path):
  run = run_of(tmp_path / "run", written_in=3)
  commands = (
    ("train", TINY),
    ("sample", "--prompt=a star", f"--out={tmp_path}/star.png"),
    ("evaluate", f"--out={tmp_path}/evaluation"),
  )
  for command in commands:
    said = refused(*command, f"--workdir={run}")
    assert f"{run}/checkpoints/4, of format 3, " in said and "no token begins a turn" in said, command


def test_a_run_of_the_first_layout_is_named_by_every_command(refused, tmp_path):
  workdir = Workdir(tmp_path / "run")
  workdir.create()
  workdir.write_config(small.config().to_dict())
  about = workdir.checkpoints / "12" / "about"
  about.mkdir(parents=True)
  (about / "_METADATA").touch()
  for command, *flags_ in (("train", TINY), ("evaluate",)):
    said = refused(command, f"--workdir={workdir.path}", *flags_)
    assert "checkpoints/12 was written before checkpoints were sealed" in said
  assert about.exists()


def test_a_prompt_that_is_no_text_is_refused_before_the_run_is_read(refused, tmp_path):
  said = refused("sample", f"--workdir={tmp_path}", "--prompt=\udcff red star", f"--out={tmp_path}/star.png")
  assert "bytes that are no text in UTF-8: '\\udcff red star'" in said


def test_commands_run_in_32_bits_and_can_print_any_name(monkeypatch, capfd):
  monkeypatch.setenv("JAX_ENABLE_X64", "1")
  monkeypatch.setattr(cli.app, "run", lambda main, flags_parser: print("\udcff.png"))
  monkeypatch.setattr(cli.signals, "begin", lambda: None)  # or SIGTERM would end the process of all later tests
  cli.run(lambda argv: None)
  assert os.environ["JAX_ENABLE_X64"] == "0" and "\\udcff.png" in capfd.readouterr().out


def test_a_prompt_that_cannot_be_drawn_is_refused(refused, run_of_zeros, tmp_path):
  out = tmp_path / "star.png"
  draw = lambda prompt: refused("sample", f"--workdir={run_of_zeros}", f"--prompt={prompt}", f"--out={out}")  # noqa: E731
  assert "the prompt is empty" in draw("")
  assert "the prompt is empty" in draw("  ")
  assert "tokens and the model reads at most" in draw("a large red star and " * 40)
  assert not out.exists()


@pytest.mark.parametrize(
  "out, said",
  [
    ("nowhere/star.png", "its folder does not exist"),
    ("star.bmpp", "must be the name of a PNG file"),
    ("folder.png", "cannot be written"),
  ],
)
def test_a_picture_that_could_not_be_saved_is_not_drawn(refused, run_of_zeros, tmp_path, out, said):
  (tmp_path / "folder.png").mkdir()
  assert said in refused("sample", f"--workdir={run_of_zeros}", "--prompt=a star", f"--out={tmp_path / out}")


def test_a_workdir_that_is_no_run_is_named(refused, tmp_path):
  for command, *rest in (("sample", "--prompt=a star", f"--out={tmp_path}/star.png"), ("evaluate",)):
    assert f"{tmp_path} is not a run" in refused(command, f"--workdir={tmp_path}", *rest)
  Workdir(tmp_path).create()
  Workdir(tmp_path).write_config(small.config().to_dict())
  assert "has no checkpoint yet" in refused("evaluate", f"--workdir={tmp_path}")
  Workdir(tmp_path).config.write_text('{"seed": 0,')
  assert "config.json cannot be read" in refused("evaluate", f"--workdir={tmp_path}")


def test_evaluate_and_sample_name_what_is_wrong_with_their_flags(refused, run_of_zeros, tmp_path):
  here = f"--workdir={run_of_zeros}"
  assert "there is no suite 'beauty'; give one of binding" in refused("evaluate", here, "--suite=beauty")
  assert "'binding' is not a flag" in refused("evaluate", here, "binding")
  assert "give --workdir" in refused("evaluate")
  assert "--prompts=0" in refused("evaluate", here, "--prompts=0")
  assert "none.safetensors: `pip download" in refused("evaluate", here, f"--lpips={tmp_path / 'none.safetensors'}")
  assert "--num_images=0" in refused("sample", here, "--num_images=0")
  assert "'red' is not a flag" in refused("sample", here, "--prompt=a", "red", "star", f"--out={tmp_path}/star.png")
  assert "give --workdir" in refused("sample", here, "--prompt=a star")
  assert "give --workdir" in refused("sample", here, "--prompt=a star", "--split=test", f"--out={tmp_path}/star.png")
  (tmp_path / "file").touch()
  assert "cannot write" in refused("evaluate", here, f"--out={tmp_path / 'file' / 'report'}")


SEEDS, GUIDANCE = "from 0 to 18,446,744,073,709,551,615", "from 0 to 100"


@pytest.mark.parametrize(
  "command, given, allowed",
  [
    *((command, "--temperature=-1", "from 0 to 1,000") for command in ("sample", "evaluate")),
    *((command, "--guidance=inf", GUIDANCE) for command in ("sample", "evaluate")),
    *((command, "--token_guidance=nan", GUIDANCE) for command in ("sample", "evaluate")),
    *((command, "--text_guidance=1e400", GUIDANCE) for command in ("sample", "evaluate")),
    *((command, "--seed=-1", SEEDS) for command in ("sample", "evaluate")),
    *((command, "--seed=18446744073709551616", SEEDS) for command in ("sample", "evaluate")),
    ("sample", "--scale=2147483648", "from 1 to 1,024"),
    ("sample", "--num_images=100000", "from 1 to 4,096"),
    ("evaluate", "--prompts=99999999999", "from 1 to 1,048,576"),
    ("evaluate", "--install_seconds=nan", "from 0 to 1e+06"),
    ("plan", "--num_slices=0", "from 1 to 1,024"),
  ],
)
def test_a_flag_out_of_its_range_is_named(refused, command, given, allowed):
  assert refused(command, given) == f"error: {given}: must be {allowed}\n"


def test_more_pixels_than_a_picture_may_have_are_refused(refused, run_of_zeros, tmp_path):
  draw = lambda *args: refused("sample", f"--workdir={run_of_zeros}", f"--out={tmp_path}/star.png", *args)  # noqa: E731
  assert "each shown 16,000 pixels wide, are 256,000,000 pixels" in draw("--prompt=a star", "--scale=1000")
  assert "--num_images=4000, each shown 2,048" in draw("--prompt=a star", "--scale=128", "--num_images=4000")
  assert not list(tmp_path.iterdir())


def test_more_pictures_than_memory_holds_are_not_evaluated(refused, monkeypatch):
  data = dataclasses.replace(small.settings().data, image_size=512, sequence_length=4100)
  settings = dataclasses.replace(small.settings(), data=data)
  monkeypatch.setattr(workdir_module, "load_run", lambda path, *_: Run(settings, {}, small.text_tokenizer(), 1))
  said = refused("evaluate", "--workdir=run", "--prompts=1048576")
  assert "--prompts=1048576: of this run's 512×512 pixels at most 1,024 fit into memory" in said


def test_a_save_that_fails_is_not_told_twice():
  record = lambda path, level: logging.LogRecord("absl", level, path, 1, "failed", (), None)  # noqa: E731
  assert not cli._no_traceback_of_orbax(record("/lib/orbax/checkpoint/future.py", logging.ERROR))
  assert cli._no_traceback_of_orbax(record("/lib/orbax/checkpoint/future.py", logging.WARNING))
  assert cli._no_traceback_of_orbax(record("/lib/omniimage/checkpoint.py", logging.ERROR))


@pytest.mark.parametrize(
  "args, said",
  [
    (["launch.train", TINY, "--config.sed=1", "--workdir=/tmp/never"], "did you mean seed?"),
    (["launch.train", "--config=configs/common.py", "--workdir=/tmp/never"], "configs/common.py has no function"),
    (["launch.sample", "--workdir=/tmp/never", "--prompt=a star", "--out=star.png"], "/tmp/never is not a run"),
  ],
)
def test_as_a_process_too_it_is_one_line_and_exit_code_2(args, said):
  done = subprocess.run([sys.executable, "-m", *args], capture_output=True, text=True, env=ENVIRONMENT)
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1 and said in done.stderr
  assert not done.stdout
