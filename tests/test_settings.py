import dataclasses
import functools
import pathlib
import sys
import typing

import jax
import pytest

from configs import emoji, scenes
from omniimage import settings as settings_module
from omniimage.sampling.generate import Generator, draw
from omniimage.settings import SOURCES, Settings, SettingsError, from_config
from omniimage.training import loop
from omniimage.training.state import fresh_state
from omniimage.workdir import Workdir
from tests import small

OURS = tuple(str(pathlib.Path(settings_module.__file__).parents[1] / folder) for folder in ("omniimage", "launch"))


@pytest.mark.parametrize("config", [scenes.get_config(), scenes.get_config("tiny"), emoji.get_config()])
def test_the_configs_convert(config):
  settings = from_config(config)
  assert settings.schedule == ("tokenizer", "prior", "decoder", "joint")
  assert all(settings.stages[name].steps > 0 for name in settings.schedule)
  assert settings.stages["joint"].tokenizer_rate <= 0.1 * settings.stages["joint"].prior_rate


@pytest.mark.parametrize("module", [scenes, emoji])
def test_a_variant_that_a_config_does_not_have_is_an_error_that_names_it(module):
  with pytest.raises(ValueError, match="'huge'"):
    module.get_config("huge")


def _classes(cls: type) -> set[type]:
  """The settings class and all below it."""
  kinds = {kind for hint in typing.get_type_hints(cls).values() for kind in (hint, *typing.get_args(hint))}
  return {cls}.union(*(_classes(kind) for kind in kinds if dataclasses.is_dataclass(kind)))


def _is_reader(frame) -> bool:
  """Whether it is code of ours that reads: not a check, nor what dataclasses generate (copies, hashes, comparisons)."""
  if frame.f_code.co_name == "_astuple_inner":  # the sizes of the mesh are read all at once
    return True
  while frame.f_code.co_filename == settings_module.__file__:  # a property reads for whoever asks for it
    if frame.f_code.co_name == "__post_init__":
      return False
    frame = frame.f_back
  return frame.f_code.co_filename.startswith(OURS)


@pytest.fixture
def read(monkeypatch):
  """(class, field) of every setting that is read while a test runs."""
  seen = set()

  def record(cls: type, names: set[str]):
    def getattribute(self, name):
      if name in names and _is_reader(sys._getframe(1)):
        seen.add((cls.__name__, name))
      return object.__getattribute__(self, name)

    monkeypatch.setattr(cls, "__getattribute__", getattribute)

  for cls in _classes(Settings):
    record(cls, {field.name for field in dataclasses.fields(cls)})
  return seen


class Nothing:
  """Stands for what would write: checkpoints, sample sheets, metrics."""

  def __getattr__(self, name):
    return lambda *args, **kwargs: None


def test_every_field_has_a_reader(read, monkeypatch, tmp_path):
  """A run, from its config over a stage to a drawing, traced and not compiled, reads every field of the settings."""
  config = small.config(**small.SHALLOW, **{"schedule": ("joint",), "stages.joint.weights.text": 1.0})
  trainer = loop.Trainer.prepare(config, Workdir(tmp_path))
  trainer.checkpoints.close()
  trainer = dataclasses.replace(trainer, checkpoints=Nothing(), sheets=Nothing(), metrics=Nothing())

  def traced_step(self, state, stage, start):
    step = functools.partial(jax.eval_shape, loop.jitted_step(self.omni, stage, start, self.mesh, state))
    return lambda state, batch: (state.replace(step=state.step + 1), dict.fromkeys(step(state, batch)[1], 0.0))

  monkeypatch.setattr(loop.Trainer, "compile_step", traced_step)
  monkeypatch.setattr(loop.Trainer, "_pass_on", lambda self, state: state)
  params = small.params(trainer.omni)
  trainer.run_stage(trainer._enter(fresh_state(params), "joint"), "joint", lambda step: False)

  generator = Generator(trainer.settings, params, small.text_tokenizer())
  generator._draw = lambda *args, sampling: jax.eval_shape(
    functools.partial(draw, generator.omni, sampling=sampling), *args
  )
  generator(["a red star"])

  fields = {(cls.__name__, field.name) for cls in _classes(Settings) for field in dataclasses.fields(cls)}
  chosen_by = {(cls.__name__, "name") for cls in SOURCES.values()}  # it has chosen the class, in `from_config`
  assert fields - chosen_by - read == set()


def _changed(changes: dict) -> dict:
  """A config with some keys, dotted, set to other values: a plain dict, for a ConfigDict itself refuses some types."""
  config = small.config().to_dict()
  for key, value in changes.items():
    *groups, name = key.split(".")
    functools.reduce(lambda group, part: group[part], groups, config)[name] = value
  return config


def _refused(config: dict) -> str:
  with pytest.raises(SettingsError) as raised:
    from_config(config)
  assert "\n" not in str(raised.value)
  return str(raised.value)


@pytest.mark.parametrize(
  "key, value, said",
  [
    ("seed", "abc", "config.seed='abc' is of type str; expected int"),
    ("seed", True, "config.seed=True is of type bool; expected int"),
    ("seed", 1.5, "config.seed=1.5 is of type float; expected int"),
    ("seed", None, "config.seed=None is of type NoneType; expected int"),
    ("scan_layers", 1, "config.scan_layers=1 is of type int; expected bool"),
    ("compute_dtype", 32, "config.compute_dtype=32 is of type int; expected str"),
    ("data.drop_text", "0.1", "config.data.drop_text='0.1' is of type str; expected float"),
    ("data.drop_text", False, "config.data.drop_text=False is of type bool; expected float"),
    ("tokenizer.levels", 3, "config.tokenizer.levels=3 must be a tuple of int"),
    ("tokenizer.levels", (8, 5.5), "config.tokenizer.levels[1]=5.5 is of type float; expected int"),
    ("schedule", "tokenizer", "config.schedule='tokenizer' must be a tuple of str"),
    ("tokenizer", 3, "config.tokenizer=3 must be a group of keys"),
    ("stages", 3, "config.stages=3 must be a group of keys"),
    ("stages.prior", 3, "config.stages.prior=3 must be a group of keys"),
    ("data.source", "scenes", "config.data.source='scenes' must be a group of keys"),
    ("data.source", [], "config.data.source.name=[] is not a data source; there are scenes, emoji"),
    ("data.source.name", "photos", "config.data.source.name='photos' is not a data source; there are scenes, emoji"),
  ],
)
def test_a_wrong_type_is_one_line_that_names_the_key(key, value, said):
  assert _refused(_changed({key: value})) == said


def test_a_whole_number_will_do_where_a_fraction_is_asked_for():
  settings = from_config(_changed({"optimizer.clip_norm": 2}))
  assert settings.optimizer.clip_norm == 2.0 and isinstance(settings.optimizer.clip_norm, float)


@pytest.mark.parametrize(
  "changes, said",
  [
    ({"seed": -1}, "seed=-1 is negative"),
    ({"compute_dtype": "float16"}, "compute_dtype='float16': float32 or bfloat16"),
    ({"remat": "some"}, "remat='some': none, projections, mlp, attention, full, offload"),
    ({"data.image_size": 30}, "data.image_size=30 must be a multiple of decoder.pixels_per_token=8"),
    ({"data.drop_text": 1.0}, "data.drop_text=1.0 must be in [0, 1)"),
    ({"data.packing_rows": 0}, "data.packing_rows=0 must be positive"),
    ({"data.sequence_length": 7}, "data.sequence_length=7 cannot hold one image of 8 tokens"),
    ({"data.source.grid": 6}, "data.source.grid=6 must be from 2 to 5"),
    ({"data.source.max_objects": 9}, "1 <= min_objects=1 <= max_objects=9"),
    ({"tokenizer.patch_size": 5}, "decoder.pixels_per_token=8 must be a multiple of tokenizer.patch_size=5"),
    ({"tokenizer.heads": 3}, "tokenizer.width=32 must be a multiple of 2 × tokenizer.heads=6"),
    ({"tokenizer.heads": 32}, "tokenizer.width=32 must be a multiple of 2 × tokenizer.heads=64"),
    ({"tokenizer.levels": (8, 1)}, "tokenizer.levels=(8, 1)"),
    ({"prior.kv_heads": 3}, "prior.heads=2 must be a multiple of prior.kv_heads=3"),
    ({"prior.head_width": 15}, "prior.head_width=15 must be even"),
    ({"prior.depth": 0}, "prior.depth=0 must be positive"),
    ({"decoder.heads": 32, "decoder.kv_heads": 32}, "decoder.width=32 must be a multiple of 2 × decoder.heads=64"),
    ({"decoder.kv_heads": 3}, "decoder.heads=2 must be a multiple of decoder.kv_heads=3"),
    ({"decoder.patch_size": 3}, "decoder.pixels_per_token=8 must be a multiple of decoder.patch_size=3"),
    ({"decoder.chunk_rows": (9,)}, "chunk_rows=9: the canvas has 4 patch rows"),
    ({"decoder.chunk_rows": (2, 1)}, "decoder.chunk_offsets=(0,) need one entry a layout"),
    ({"decoder.context_rows": -1}, "decoder.context_rows=-1 is negative"),
    ({"decoder.finished_noise": 1.0}, "decoder.finished_noise=1.0 must be in [0, 1)"),
    ({"sampling.chunk_rows": 3}, "sampling.chunk_rows=3 must divide the canvas's 4 patch rows"),
    ({"sampling.top_p": 0.0}, "sampling.top_p=0.0 must be in (0, 1]"),
    ({"sampling.diffusion_steps": 0}, "sampling.diffusion_steps=0 must be positive"),
    ({"optimizer.b2": 1.0}, "optimizer.b2=1.0 must be in [0, 1)"),
    ({"optimizer.clip_norm": 0.0}, "optimizer.clip_norm=0.0 must be positive"),
    ({"optimizer.final_rate": 2.0}, "optimizer.final_rate=2.0 must be in [0, 1]"),
    ({"mesh.fsdp": -1}, "at most one axis may be -1"),
    ({"mesh.fsdp": 0}, "axes are positive, or -1 for the rest"),
    ({"run.log_every": 0}, "run.log_every=0 must be positive"),
    ({"run.sample_every": -1}, "run.sample_every=-1 is negative"),
    ({"schedule": ("tokenizer", "paint")}, "schedule names 'paint'; the stages are decoder, joint, prior, tokenizer"),
    ({"schedule": ()}, "schedule=() makes no steps"),
    ({"stages.prior.accumulate": 3}, "config.stages.prior: rows=8 must be a multiple of accumulate=3"),
    ({"stages.prior.warmup_steps": 11}, "config.stages.prior: warmup_steps=11 exceeds steps=10"),
    ({"stages.prior.prior_rate": 0.0}, "config.stages.prior: a stage needs a part that moves"),
    ({"stages.prior.prior_rate": -1.0}, "config.stages.prior: prior_rate=-1.0 is negative"),
    ({"stages.prior.decoder_rate": 0.1}, "nothing teaches the decoder: give a weight to diffusion"),
    ({"stages.prior.tokenizer_rate": 0.1}, "nothing teaches the tokenizer: give a weight to pixel or diffusion"),
    ({"stages.prior.weights.image": -1.0}, "config.stages.prior.weights: loss weight image=-1.0 is negative"),
    ({"stages.prior.weights.image": 0.0}, "a stage needs a loss weight above zero"),
    ({"stages.prior.sampled_codes": 0.5}, "sampled_codes=0.5 is for painting: give weights.diffusion a weight"),
  ],
)  # fmt: skip
def test_an_impossible_combination_is_one_line_that_names_what_to_change(changes, said):
  assert said in _refused(_changed(changes))


@pytest.mark.parametrize(
  "key, said",
  [
    ("sed", "config.sed is not a setting; did you mean config.seed?"),
    ("decoder.chunk_row", "config.decoder.chunk_row is not a setting; did you mean config.decoder.chunk_rows?"),
    ("stages.joint.weights.pixels", "did you mean config.stages.joint.weights.pixel?"),
    ("data.source.name_", "config.data.source.name_ is not a setting; did you mean config.data.source.name?"),
    ("run.colour", "config.run.colour is not a setting; the keys are checkpoint_every, keep_checkpoints, keep_every"),
  ],
)
def test_an_unknown_key_is_named_with_the_nearest_there_is(key, said):
  assert said in _refused(_changed({key: 2}))


@pytest.mark.parametrize("key", ["seed", "optimizer.clip_norm", "data.source.grid", "stages.prior.weights.z"])
def test_a_missing_key_is_named(key):
  config = small.config().to_dict()
  *groups, name = key.split(".")
  del functools.reduce(lambda group, part: group[part], groups, config)[name]
  assert _refused(config) == f"config.{key} is missing; add it, as the files in configs/ have it"


def test_settings_cannot_be_changed_after_they_were_checked():
  settings = small.settings()
  with pytest.raises(dataclasses.FrozenInstanceError):
    settings.seed = 3
  with pytest.raises(TypeError):
    settings.stages["prior"] = None
