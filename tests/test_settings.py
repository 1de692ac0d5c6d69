import dataclasses
import functools
import pathlib
import re
import typing

import pytest

from configs import emoji, scenes
from omniimage.settings import SOURCES, MeshSettings, Settings, SettingsError, from_config
from tests import small

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.parametrize("config", [scenes.get_config(), scenes.get_config("tiny"), emoji.get_config()])
def test_the_configs_convert(config):
  settings = from_config(config)
  assert settings.schedule == ("tokenizer", "prior", "decoder", "joint")
  assert all(settings.stages[name].steps > 0 for name in settings.schedule)
  assert settings.stages["joint"].tokenizer_rate <= 0.1 * settings.stages["joint"].prior_rate


def _fields(cls) -> set[str]:
  """Names of all fields below a settings class."""
  names = set()
  for hint in typing.get_type_hints(cls).values():
    for kind in (hint, *typing.get_args(hint)):
      if dataclasses.is_dataclass(kind):
        names |= _fields(kind)
  return names | {field.name for field in dataclasses.fields(cls)}


def test_every_field_has_a_reader():
  code = "\n".join(path.read_text() for path in [*ROOT.glob("omniimage/**/*.py"), *ROOT.glob("launch/*.py")])
  read = set(re.findall(r"\.(\w+)", code))
  # Rates are read as f"{part}_rate", the sizes of the mesh all at once.
  assert "{part}_rate" in code and "dataclasses.astuple(settings)" in code
  read |= {"tokenizer_rate", "prior_rate", "decoder_rate"} | _fields(MeshSettings)
  fields = _fields(Settings).union(*map(_fields, SOURCES.values()))
  assert fields <= read, fields - read


@pytest.mark.parametrize(
  "changes, said",
  [
    ({"seed": "abc"}, "config.seed='abc' is of type str; expected int"),
    ({"tokenizer.levels": 3}, "config.tokenizer.levels=3 must be a tuple of int"),
    ({"data.image_size": 30}, "data.image_size=30 must be a multiple of decoder.pixels_per_token=8"),
    ({"tokenizer.patch_size": 5}, "decoder.pixels_per_token=8 must be a multiple of tokenizer.patch_size=5"),
    ({"prior.kv_heads": 3}, "prior.heads=2 must be a multiple of prior.kv_heads=3"),
    ({"data.source.name": "photos"}, "config.data.source.name='photos' is not a data source; there are scenes, emoji"),
    ({"data.source.max_objects": 9}, "1 <= min_objects=1 <= max_objects=9"),
    ({"decoder.chunk_rows": (9,)}, "chunk_rows=9: the canvas has 4 patch rows"),
    ({"sampling.chunk_rows": 3}, "sampling.chunk_rows=3 must divide the canvas's 4 patch rows"),
    ({"stages.prior.accumulate": 3}, "rows=8 must be a multiple of accumulate=3"),
    ({"stages.prior.prior_rate": 0.0}, "a stage needs a part that moves"),
    ({"stages.prior.weights.image": -1.0}, "loss weight image=-1.0 is negative"),
    ({"schedule": ("tokenizer", "paint")}, "schedule names 'paint'; the stages are decoder, joint, prior, tokenizer"),
    ({"mesh.fsdp": -1}, "at most one axis may be -1"),
    ({"data.sequence_length": 7}, "data.sequence_length=7 cannot hold one image"),
  ],
)
def test_an_impossible_config_is_one_line_that_names_what_to_change(changes, said):
  config = small.config().to_dict()  # as from a file: a ConfigDict would itself refuse some types
  for key, value in changes.items():
    *groups, name = key.split(".")
    functools.reduce(lambda group, part: group[part], groups, config)[name] = value
  with pytest.raises(SettingsError) as raised:
    from_config(config)
  assert said in str(raised.value) and "\n" not in str(raised.value)


def test_a_misspelt_key_is_named_with_the_nearest_there_is():
  config = small.config().to_dict()
  config["decoder"]["chunk_row"] = 2
  with pytest.raises(
    SettingsError, match=r"config.decoder.chunk_row is not a setting; did you mean config.decoder.chunk_rows\?"
  ):
    from_config(config)


def test_a_missing_key_is_named():
  config = small.config().to_dict()
  del config["optimizer"]["clip_norm"]
  with pytest.raises(SettingsError, match=r"config\.optimizer\.clip_norm is missing"):
    from_config(config)


def test_settings_cannot_be_changed_after_they_were_checked():
  settings = small.settings()
  with pytest.raises(dataclasses.FrozenInstanceError):
    settings.seed = 3
  with pytest.raises(TypeError):
    settings.stages["prior"] = None
