"""From a config to settings: `from_config`."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from absl import logging

from omniimage.data.sources import SOURCES
from omniimage.data.sources.source import SourceSettings
from omniimage.errors import SettingsError
from omniimage.ranges import OutOfRange, shown
from omniimage.settings.kinds import require, require_key
from omniimage.settings.sampling import AS_TRAINED
from omniimage.settings.whole import Settings


def from_config(config: Mapping[str, Any]) -> Settings:
  """Converts a ConfigDict (or plain nested dict) into `Settings`. Raises SettingsError."""
  settings = _settings(config)
  sampling, decoder = settings.sampling, settings.decoder
  across = f", sampling.chunk_columns={sampling.chunk_columns}" if decoder.chunk_columns else ""
  require(
    settings.paints_as_trained,
    f"config.sampling.chunk_rows={sampling.chunk_rows}{across} is never trained: decoder.chunk_rows="
    f"{decoder.chunk_rows}, decoder.chunk_columns={decoder.chunk_columns}, decoder.chunk_offsets="
    f"{decoder.chunk_offsets}; set it to {AS_TRAINED}, as trained, or train a layout with such chunks and offset 0",
  )
  return settings


def from_stored(config: Mapping[str, Any]) -> Settings:
  """`from_config` for a run that is there already: where it says to sample what was never trained, as runs of before
  may, it samples as trained, with a warning."""
  settings = _settings(config)
  if settings.paints_as_trained or not settings.trained_chunks:
    return settings
  rows, columns = settings.trained_chunks[0]
  logging.warning(
    "the run's sampling.chunk_rows=%d was never trained: painting %d patch rows at a time, as trained",
    settings.sampling.chunk_rows,
    rows,
  )
  sampling = dataclasses.replace(settings.sampling, chunk_rows=rows, chunk_columns=columns)
  return dataclasses.replace(settings, sampling=sampling)


def _settings(config: Mapping[str, Any]) -> Settings:
  return _build(Settings, config.to_dict() if hasattr(config, "to_dict") else config, "config")


def _build(cls: type, values: Any, path: str):
  require(isinstance(values, Mapping), f"{path}={values!r} must be a group of keys")
  hints = typing.get_type_hints(cls)
  for key in values:
    require_key(key, hints, path)
  missing = [key for key in hints if key not in values]
  require(not missing, f"{path}.{missing[0] if missing else ''} is missing; add it, as the files in configs/ have it")
  built = {key: _convert(hints[key], values[key], f"{path}.{key}") for key in hints}
  try:
    return cls(**built)
  except OutOfRange as error:
    raise SettingsError(f"{path}.{error}") from None
  except SettingsError as error:
    raise SettingsError(f"{path}: {error}") from None


def _convert(hint: Any, value: Any, path: str):
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if hint is SourceSettings:  # its name chooses the dataclass
    name = value.get("name") if isinstance(value, Mapping) else value
    require(name in tuple(SOURCES), f"{path}.name={name!r} is not a data source; there are {', '.join(SOURCES)}")
    return _build(SOURCES[name].settings, value, path)
  if origin is types.UnionType:  # of groups: that which has the most of the keys
    require(isinstance(value, Mapping), f"{path}={shown(value)} must be a group of keys")
    hint = max(args, key=lambda group: len(value.keys() & typing.get_type_hints(group).keys()))
  if dataclasses.is_dataclass(hint):
    return _build(hint, value, path)
  if origin is tuple:
    require(isinstance(value, (tuple, list)), f"{path}={shown(value)} must be a tuple of {args[0].__name__}")
    return tuple(_convert(args[0], item, f"{path}[{i}]") for i, item in enumerate(value))
  if origin is typing.get_origin(Mapping[str, int]):
    require(isinstance(value, Mapping), f"{path}={shown(value)} must be a group of keys")
    return types.MappingProxyType({key: _convert(args[1], item, f"{path}.{key}") for key, item in value.items()})
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value) if value.bit_length() < 1024 else value  # which is in no range
  good = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
  require(good, f"{path}={shown(value)} is of type {type(value).__name__}; expected {hint.__name__}")
  return value
