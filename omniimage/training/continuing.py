"""Going on with a run under a changed config: what may change, and what may not."""

from collections.abc import Iterator, Mapping
from typing import Any

from absl import logging

from omniimage.errors import UserError

MODEL = ("tokenizer.", "prior.", "decoder.", "data.image_size", "data.vocabulary")  # what the parameters mean
LAYOUTS = ("decoder.chunk_rows", "decoder.chunk_offsets")  # what a painter has learnt to paint, once it is trained


def check_config(stored: Mapping[str, Any], given: Mapping[str, Any], where: str, step: int):
  """Logs how the given config differs from the one stored at a step. Raises UserError if the model is another."""
  free = () if _painter_is_trained(stored, step) else LAYOUTS
  changes = list(_differences(stored, given))
  model = [text for path, text in changes if path.startswith(MODEL) and path not in free]
  if model:
    raise UserError(
      f"{where} was trained with another model: {'; '.join(model[:3])}"
      f"{f' and {len(model) - 3} more' if len(model) > 3 else ''}. Use its config, or another workdir"
    )
  for _, text in changes:
    logging.warning("goes on with another config: %s", text)


def _painter_is_trained(config: Mapping[str, Any], step: int) -> bool:
  """Whether an update before `step` has moved the decoder."""
  for name in config["schedule"]:
    if step > 0 and config["stages"][name]["decoder_rate"] > 0:
      return True
    step -= config["stages"][name]["steps"]
  return False


def _differences(stored: Any, given: Any, path: str = "") -> Iterator[tuple[str, str]]:
  """(path, in words) of each value that differs, by dotted path."""
  if isinstance(stored, Mapping) and isinstance(given, Mapping):
    for key in (*stored, *(key for key in given if key not in stored)):
      inner = f"{path}.{key}" if path else key
      if key not in stored or key not in given:
        yield inner, f"{inner} is {_only(stored, key)} there and {_only(given, key)} here"
      else:
        yield from _differences(stored[key], given[key], inner)
  elif stored != given:
    yield path, f"{path} is {stored!r} there and {given!r} here"


def _only(config: Mapping[str, Any], key: str) -> str:
  return repr(config[key]) if key in config else "not set"
