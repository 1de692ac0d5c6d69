import dataclasses
import functools
import math
import pathlib
import sys
import typing

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from configs import emoji, omni, scenes, systems
from omniimage import settings as settings_module
from omniimage.data.records import captioned
from omniimage.data.sources import SOURCES, open_source
from omniimage.data.sources.mixture import MixtureSettings
from omniimage.data.sources.records import RecordsSettings
from omniimage.data.sources.source import SourceSettings
from omniimage.data.sources.tfds import TfdsSettings
from omniimage.distributed.mesh import make_mesh
from omniimage.ranges import ranges_of
from omniimage.sampling.generate import Generator, draw_prompts
from omniimage.settings import Settings, SettingsError, from_config, from_stored
from omniimage.systems import open_system
from omniimage.training import loop
from omniimage.training.sharded import abstract_batch, abstract_state
from omniimage.training.state import fresh_state
from omniimage.training.step import make_train_step
from omniimage.workdir import Workdir
from tests import made_lpips, small, stored_records, tfds_sets

SETTINGS = pathlib.Path(settings_module.__file__).parent
THERE_ARE = f"there are {', '.join(SOURCES)}"
OURS = tuple(str(SETTINGS.parents[1] / folder) for folder in ("omniimage", "launch"))


@pytest.mark.parametrize("config", [scenes.get_config(), scenes.get_config("tiny"), emoji.get_config()])
def test_the_configs_convert(config):
  settings = from_config(config)
  assert settings.schedule == ("tokenizer", "prior", "decoder", "joint")
  assert all(settings.stages[name].steps > 0 for name in settings.schedule)
  assert settings.stages["joint"].rates["tokenizer"] <= 0.1 * settings.stages["joint"].rates["prior"]


@pytest.mark.parametrize("module", [scenes, emoji])
def test_a_variant_that_a_config_does_not_have_is_an_error_that_names_it(module):
  with pytest.raises(ValueError, match="'huge'"):
    module.get_config("huge")


def _classes(cls: type) -> set[type]:
  """The settings class and all below it."""
  found, left = set(), [cls]
  while left:
    if (kind := left.pop()) in found or not dataclasses.is_dataclass(kind):
      continue
    found.add(kind)
    kinds = {inner for hint in typing.get_type_hints(kind).values() for inner in (hint, *typing.get_args(hint))}
    left += [*kinds, *(row.settings for row in SOURCES.values() if SourceSettings in kinds)]
  return found


def _is_reader(frame) -> bool:
  """Whether it is code of ours that reads: not a check, nor what dataclasses generate (copies, hashes, comparisons)."""
  if frame.f_code.co_name == "_astuple_inner":  # the sizes of the mesh are read all at once
    return True
  # A property, seen through the recorder below, reads for whoever asks for it.
  while frame.f_code.co_filename.startswith(str(SETTINGS)) or frame.f_code.co_name == "getattribute":
    if frame.f_code.co_name == "__post_init__":
      return False
    frame = frame.f_back
  if frame.f_code.co_name == "__post_init__" and isinstance(frame.f_locals["self"], SourceSettings):
    return False
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
  made_lpips.write(tmp_path / "alexnet.safetensors", made_lpips.made("alexnet"))
  terms = {"stages.joint.weights.text": 1.0, "stages.joint.weights.pixel_lpips": 1.0}
  config = small.config(
    **small.SHALLOW, **terms, **{"schedule": ("joint",), "lpips": str(tmp_path / "alexnet.safetensors")}
  )
  trainer = loop.Trainer.prepare(config, Workdir(tmp_path))
  trainer.close()
  trainer = dataclasses.replace(trainer, checkpoints=Nothing(), sheets=Nothing(), metrics=Nothing())

  def traced_step(self, state, stage, start):
    step = functools.partial(jax.eval_shape, loop.jitted_step(self.system, stage, start, self.mesh, state))
    return lambda state, batch: (state.replace(step=state.step + 1), dict.fromkeys(step(state, batch)[1], 0.0))

  monkeypatch.setattr(loop.Trainer, "compile_step", traced_step)
  monkeypatch.setattr(loop.Trainer, "_pass_on", lambda self, state: state)
  assert trainer.system.starts() == {}
  params = small.params(trainer.system)
  trainer.run_stage(trainer._enter(fresh_state(params), "joint"), "joint", lambda step: False)

  generator = Generator(trainer.settings, params, small.text_tokenizer())
  generator._draw = lambda *args, sampling: jax.eval_shape(
    functools.partial(draw_prompts, generator.omni, sampling=sampling), *args
  )
  generator(["a red star"])
  _read_own_data(trainer.settings, tmp_path, monkeypatch)
  _learn(from_config(systems.get_config("stable_diffusion_tiny")))
  _learn(from_config(systems.get_config("unclip_tiny")))
  _learn(small.learnt("vq", **small.SHALLOW))

  fields = {(cls.__name__, field.name) for cls in _classes(Settings) for field in dataclasses.fields(cls)}
  chosen_by = {(row.settings.__name__, "name") for row in SOURCES.values()}  # has chosen the class, in `from_config`
  chosen_by.add((SourceSettings.__name__, "name"))
  assert fields - chosen_by - read == set()


def _read_own_data(settings: Settings, folder: pathlib.Path, monkeypatch):
  """Opens the sources that read what lies on disk, and a mixture of them."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
  picture = stored_records.picture()
  stored_records.write(folder / "records", {"train": [captioned("a", ["a square"], picture)]})
  features = {"text": tfds.features.Text(), "image": tfds.features.Image()}
  examples = [{"text": "a square", "image": picture}]
  tfds_sets.make(folder, "squares", features, {"train": examples, "test": examples})
  shown = {"templates": ("{}",), "fit": "crop", "background": (255, 255, 255)}
  own = (
    RecordsSettings("records", path=str(folder / "records"), **shown),
    TfdsSettings("tfds", dataset=str(folder / "squares"), mapping=(), **shown),
  )
  data = dataclasses.replace(settings.data, source=MixtureSettings("mixture", own, (1.0, 1.0)))
  opened = open_source(data, "train", settings.buckets, small.text_tokenizer(), small.omni(settings).vocabulary)
  assert len(opened.catalogue().parts) == 2 and opened.record(1, np.random.default_rng(0))
  assert opened.record(0, np.random.default_rng(0))


def _learn(s: Settings):
  """Traces the stages of a system that has an autoencoder, an embedder or a learnt codebook in place of FSQ."""
  system, mesh = open_system(s, small.text_tokenizer().size), make_mesh(s.mesh)
  for name, stage in s.stages.items():
    state, batch = abstract_state(system, name, mesh), abstract_batch(system, name, stage.rows, mesh)
    jax.eval_shape(make_train_step(system, stage, 0), state, batch)


def _changed(changes: dict) -> dict:
  """A config with some keys, dotted, set to other values: a plain dict, for a ConfigDict itself refuses some types."""
  config = small.config().to_dict()
  small.put(config, changes)
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
    ("data.source", [], f"config.data.source.name=[] is not a data source; {THERE_ARE}"),
    (
      "data.source.name",
      "photos",
      f"config.data.source.name='photos' is not a data source; {THERE_ARE}",
    ),
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
    ({"seed": -1}, "config.seed=-1 must be from 0 to 18,446,744,073,709,551,615"),
    ({"compute_dtype": "float16"}, "compute_dtype='float16': auto, float32 or bfloat16"),
    ({"remat": "some"}, "remat='some': none, projections, mlp, attention, full, offload"),
    ({"data.image_size": 30}, "data.image_size=30 must be a multiple of decoder.pixels_per_token=8"),
    ({"data.image_size": 2048, "data.sequence_length": 2**16}, "has 256 tokens a side; at most 128"),
    ({"data.image_size": 1024, "decoder.patch_size": 2}, "has 512 patches a side; at most 256"),
    ({"stages.prior.steps": 2**31 - 1}, "the stages' steps add up to 2147483677; at most 2,147,483,647"),
    ({"data.drop_text": 1.0}, "config.data.drop_text=1.0 must be from 0 to 0.999"),
    ({"data.aspect_ratios": ()}, "data.aspect_ratios is empty; give width:height of the buckets"),
    ({"data.aspect_ratios": ("1:1", "4/3")}, "'4/3' is no aspect ratio"),
    ({"data.aspect_ratios": ("1:1", "8:9")}, "has 1:1 and 8:9, both of 2×2 visual tokens at data.image_size=16; leave"),
    ({"data.aspect_ratios": ("1:1", "1:1")}, "has 1:1 and 1:1, both of 2×2 visual tokens"),
    ({"data.aspect_ratios": "4:3"}, "config.data.aspect_ratios='4:3' must be a tuple of str"),
    ({"data.workers": -1}, "config.data.workers=-1 must be from 0 to 512"),
    ({"data.packing_rows": 0}, "config.data.packing_rows=0 must be from 1 to 65,536"),
    ({"data.sequence_length": 7}, "data.sequence_length=7 cannot hold one image of 8 tokens"),
    ({"data.source.grid": 6}, "config.data.source.grid=6 must be from 2 to 5"),
    ({"data.source.max_objects": 9}, "min_objects=1 <= max_objects=9 <= grid²"),
    ({"tokenizer.patch_size": 5}, "decoder.pixels_per_token=8 must be a multiple of tokenizer.patch_size=5"),
    ({"tokenizer.heads": 3}, "tokenizer.width=32 must be a multiple of 2 × tokenizer.heads=6"),
    ({"tokenizer.heads": 32}, "tokenizer.width=32 must be a multiple of 2 × tokenizer.heads=64"),
    ({"tokenizer.levels": (8, 1)}, "config.tokenizer.levels[1]=1 must be from 2 to 1,048,576"),
    ({"tokenizer.levels": (8,)}, "tokenizer.levels=(8,): give two channels or more"),
    ({"tokenizer.levels": (1000,) * 4}, "make 1000000000000 codes; a codebook has at most 1,048,576"),
    ({"tokenizer.levels": (2,) * 999}, "make 2**999… codes"),
    ({"prior.kv_heads": 3}, "prior.heads=2 must be a multiple of prior.kv_heads=3"),
    ({"prior.head_width": 15}, "prior.head_width=15 must be even"),
    ({"prior.depth": 0}, "config.prior.depth=0 must be from 1 to 256"),
    ({"decoder.heads": 32, "decoder.kv_heads": 32}, "decoder.width=32 must be a multiple of 2 × decoder.heads=64"),
    ({"decoder.kv_heads": 3}, "decoder.heads=2 must be a multiple of decoder.kv_heads=3"),
    ({"decoder.patch_size": 3}, "decoder.pixels_per_token=8 must be a multiple of decoder.patch_size=3"),
    ({"decoder.chunk_rows": (9,)}, "chunk_rows=9: the canvas has 4 patch rows"),
    ({"decoder.chunk_rows": (2, 1)}, "decoder.chunk_offsets=(0,) need one entry a layout"),
    ({"decoder.chunk_columns": (1, 2)}, "decoder.chunk_columns=(1, 2) needs one entry a layout"),
    ({"decoder.chunk_columns": (9,)}, "chunk_columns=9: the canvas has 4 patch columns"),
    ({"sampling.chunk_columns": 3}, "sampling.chunk_columns=3 must divide the canvas's 4 patch columns"),
    ({"sampling.chunk_columns": 2}, "is never trained: decoder.chunk_rows=(2,)"),
    ({"decoder.context_rows": -1}, "config.decoder.context_rows=-1 must be from 0 to 256"),
    ({"decoder.finished_noise": 1.0}, "config.decoder.finished_noise=1.0 must be from 0 to 0.999"),
    ({"sampling.chunk_rows": 3}, "sampling.chunk_rows=3 must divide the canvas's 4 patch rows"),
    ({"sampling.chunk_rows": -2}, "config.sampling.chunk_rows=-2 must be from -1 to 256"),
    ({"sampling.chunk_rows": 1}, "sampling.chunk_rows=1 is never trained: decoder.chunk_rows=(2,)"),
    ({"sampling.chunk_rows": 0}, "set it to -1, as trained"),
    ({"sampling.chunk_rows": 2, "decoder.chunk_offsets": (1,)}, "sampling.chunk_rows=2 is never trained"),
    ({"decoder.chunk_offsets": (1,)}, "train a layout with offset 0 whose rows and columns divide the canvas's 4×4"),
    ({"decoder.chunk_rows": (3,)}, "train a layout with offset 0 whose rows and columns divide the canvas's 4×4"),
    ({"sampling.top_p": 0.0}, "config.sampling.top_p=0.0 must be from 1e-06 to 1"),
    ({"sampling.guidance_from": 0.5, "sampling.guidance_until": 0.5}, "guidance_from=0.5 must be below guidance"),
    ({"sampling.diffusion_steps": 0}, "config.sampling.diffusion_steps=0 must be from 1 to 10,000"),
    ({"optimizer.b2": 1.0}, "config.optimizer.b2=1.0 must be from 0 to 0.999999"),
    ({"optimizer.clip_norm": 0.0}, "config.optimizer.clip_norm=0.0 must be from 1e-06 to 1e+12"),
    ({"optimizer.final_rate": 2.0}, "config.optimizer.final_rate=2.0 must be from 0 to 1"),
    ({"mesh.fsdp": -1}, "at most one axis may be -1"),
    ({"mesh.fsdp": 0}, "axes are positive, or -1 for the rest"),
    ({"run.log_every": 0}, "config.run.log_every=0 must be from 1 to 2,147,483,647"),
    ({"run.sample_every": -1}, "config.run.sample_every=-1 must be from 0 to 2,147,483,647"),
    ({"schedule": ("tokenizer", "paint")}, "schedule names 'paint'; the stages are decoder, joint, prior, tokenizer"),
    ({"schedule": ()}, "schedule=() makes no steps"),
    ({"stages.prior.accumulate": 3}, "config.stages.prior: rows=8 must be a multiple of accumulate=3"),
    ({"stages.prior.warmup_steps": 11}, "config.stages.prior: warmup_steps=11 exceeds steps=10"),
    ({"stages.prior.rates.prior": 0.0}, "config.stages.prior: a stage needs a part that moves"),
    ({"stages.prior.rates.prior": -1.0}, "config.stages.prior.rates.prior=-1.0 must be from 0 to 100"),
    ({"stages.prior.weights.image": -1.0}, "config.stages.prior.weights.image=-1.0 must be from 0 to 1e+06"),
  ],
)  # fmt: skip
def test_an_impossible_combination_is_one_line_that_names_what_to_change(changes, said):
  assert said in _refused(_changed(changes))


def test_every_number_has_a_range():
  for cls in _classes(Settings):
    hints = typing.get_type_hints(cls)
    numbers = {name for name, hint in hints.items() if {hint, *typing.get_args(hint)} & {int, float}}
    assert set(ranges_of(cls)) == numbers, cls


def test_numbers_are_checked_wherever_settings_are_made():
  with pytest.raises(SettingsError, match="guidance=nan must be from 0 to 100"):
    dataclasses.replace(small.settings().sampling, guidance=math.nan)


@pytest.mark.parametrize("config", [3, None, [], "scenes"])
def test_a_config_that_is_no_group_is_refused(config):
  assert _refused(config) == f"config={config!r} must be a group of keys"


@pytest.mark.parametrize(
  "layouts, asked, sampled",
  [
    ({"chunk_rows": (1,)}, -1, 1),  # as `--config.decoder.chunk_rows="(1,)"` alone
    ({"chunk_rows": (0,)}, -1, 4),
    ({"chunk_rows": (2, 1), "chunk_offsets": (1, 0)}, -1, 1),  # chunks are sampled without an offset
    ({"chunk_rows": (2, 1, 0), "chunk_offsets": (2, 0, 0)}, -1, 2),  # an offset of a whole chunk is none
    ({"chunk_rows": (2, 1), "chunk_offsets": (0, 0)}, 1, 1),
    ({"chunk_rows": (4,)}, 0, 0),
  ],
)
def test_sampling_follows_the_trained_layouts_unless_asked(layouts, asked, sampled):
  changes = {f"decoder.{key}": value for key, value in layouts.items()}
  sampling = small.settings(**changes, **{"sampling.chunk_rows": asked}).sampling
  assert (sampling.chunk_rows, sampling.chunk_columns) == (sampled, 0)


@pytest.mark.parametrize(
  "layouts, asked, sampled",
  [
    ({"chunk_rows": (2,), "chunk_columns": (2,)}, (-1, -1), (2, 2)),
    ({"chunk_rows": (2, 4, 0), "chunk_columns": (0, 2, 0)}, (-1, -1), (2, 0)),
    ({"chunk_rows": (2, 4, 0), "chunk_columns": (0, 2, 0)}, (4, -1), (4, 2)),
    ({"chunk_rows": (2, 4, 0), "chunk_columns": (0, 2, 0)}, (-1, 2), (4, 2)),
    ({"chunk_rows": (2, 1), "chunk_columns": (0, 2)}, (2, 4), (2, 4)),  # the whole width is all four
    ({"chunk_rows": (2, 2), "chunk_columns": (3, 2), "chunk_offsets": (0, 0)}, (-1, -1), (2, 2)),
    ({"chunk_rows": (2, 2), "chunk_columns": (2, 2), "chunk_offsets": (1, 0)}, (-1, -1), (2, 2)),
  ],
)
def test_blocks_are_sampled_as_trained_unless_asked(layouts, asked, sampled):
  layouts = {"chunk_offsets": (0,) * len(layouts["chunk_rows"]), **layouts}
  changes = {f"decoder.{key}": value for key, value in layouts.items()}
  changes |= dict(zip(("sampling.chunk_rows", "sampling.chunk_columns"), asked))
  sampling = small.settings(**changes).sampling
  assert (sampling.chunk_rows, sampling.chunk_columns) == sampled


@pytest.mark.parametrize(
  "config", [scenes.get_config(), scenes.get_config("tiny"), emoji.get_config(), omni.get_config("7b")]
)
def test_the_configs_leave_it_to_training_what_is_sampled(config):
  config.decoder.chunk_rows = (1,)
  assert from_config(config).sampling.chunk_rows == 1


def test_a_run_of_before_that_sampled_what_was_never_trained_loads_and_samples_as_trained(caplog):
  assert from_stored(_changed({"decoder.chunk_rows": (1,), "sampling.chunk_rows": 2})).sampling.chunk_rows == 1
  assert "sampling.chunk_rows=2 was never trained" in caplog.text
  assert from_stored(_changed({"decoder.chunk_offsets": (1,), "sampling.chunk_rows": 2})).sampling.chunk_rows == 2


def test_the_first_ratio_is_drawn_and_any_other_of_the_run_can_be():
  s = small.settings(
    **{"data.image_size": 64, "data.sequence_length": 128, "data.aspect_ratios": ("1:1", "4:3", "3:4")}
  )
  assert [(size.rows, size.columns) for size in s.buckets] == [(8, 8), (7, 9), (9, 7)]
  assert s.drawing("1:1") == s and s.drawing("8:8").buckets[0] == s.buckets[0]
  tall = s.drawing("3:4")
  assert tall.buckets == (s.buckets[2], s.buckets[0], s.buckets[1]) and tall.drawing("1:1").buckets[0] == s.buckets[0]
  with pytest.raises(SettingsError, match=r"has learnt images of 1:1, 4:3, 3:4 \(data.aspect_ratios\), not of 2:1"):
    s.drawing("2:1")
  with pytest.raises(SettingsError, match="'wide' is no aspect ratio"):
    s.drawing("wide")


@pytest.mark.parametrize(
  ("trained", "painted"),
  [((2,), 2), ((0,), 18), ((4, 9), 9), ((4,), 3), ((8,), 6)],
  ids=["as before", "whole", "as trained", "lower", "lower too"],
)
def test_another_ratio_is_painted_in_chunks_that_divide_its_canvas(trained, painted):
  """The square has 16 patch rows, 3:4 has 18."""
  changes = {"data.image_size": 64, "data.sequence_length": 128, "data.aspect_ratios": ("1:1", "3:4")}
  layouts = {"decoder.chunk_rows": trained, "decoder.chunk_offsets": (0,) * len(trained)}
  assert small.settings(**changes, **layouts).drawing("3:4").sampling.chunk_rows == painted


@pytest.mark.parametrize("chunk_rows, said", [(3, "must divide the canvas's 4 patch rows"), (9, "has 4 patch rows")])
def test_a_generator_refuses_rows_that_the_canvas_does_not_have(chunk_rows, said):
  model = small.omni(small.settings())
  generator = Generator(model.settings, small.params(model), small.text_tokenizer())
  with pytest.raises(SettingsError, match=said):
    generator(["a red star"], chunk_rows=chunk_rows)


@pytest.mark.parametrize(
  "key, said",
  [
    ("sed", "config.sed is not a setting; did you mean config.seed?"),
    ("decoder.chunk_row", "config.decoder.chunk_row is not a setting; did you mean config.decoder.chunk_rows?"),
    ("data.source.name_", "config.data.source.name_ is not a setting; did you mean config.data.source.name?"),
    ("run.colour", "config.run.colour is not a setting; the keys are checkpoint_every, keep_checkpoints, keep_every"),
  ],
)
def test_an_unknown_key_is_named_with_the_nearest_there_is(key, said):
  assert said in _refused(_changed({key: 2}))


@pytest.mark.parametrize("key", ["seed", "optimizer.clip_norm", "data.source.grid", "stages.prior.sampled_codes"])
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
