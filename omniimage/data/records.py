"""A record: one conversation as it is stored, its pictures encoded as they came, its turns as JSON.

On disk it is a `tf.train.Example` of three features, so that TFDS reads a prepared data set too:

  key     where it came from, as its owner would look for it: a path in the source, `shard.tar/key`, `file.parquet:17`
  turns   JSON: [{"role": "user", "content": [{"text": ["a cat", "a tabby cat"]}]},
                 {"role": "assistant", "content": [{"image": 0}]}]
  images  the encoded files (JPEG, PNG, WebP, …) that `{"image": i}` counts from 0

Several texts of one part say the same in other words: one of them is drawn each time the record is read. What the
assistant says or draws is learnt; what the user does is given.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omniimage.vocabulary import ROLES, turns_length


class BadRecord(ValueError):
  """What is stored or given is no record. The message says why, in words for the one who made it."""


@dataclass(frozen=True)
class Text:
  """Alternatives that say the same; at least one."""

  texts: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
  """An image of the record, counted from 0."""

  index: int


Part = Text | Picture


@dataclass(frozen=True)
class Turn:
  """What one side says and shows before the other does.

  Attributes:
    role: of ROLES.
  """

  role: str
  content: tuple[Part, ...]


@dataclass(frozen=True)
class Record:
  key: str
  turns: tuple[Turn, ...]
  images: tuple[bytes, ...] = ()


def turn_tokens(turns: Sequence[Turn]) -> int:
  """Tokens that begin and end these turns."""
  return turns_length(turn.role for turn in turns)


def captioned(key: str, captions: Sequence[str], image: bytes) -> Record:
  """A picture that one of its captions asks for."""
  asked = Turn("user", (Text(tuple(captions)),))
  return Record(key, (asked, Turn("assistant", (Picture(0),))), (image,))


def text_alone(key: str, text: str) -> Record:
  """A text that is learnt as it stands."""
  return Record(key, (Turn("assistant", (Text((text,)),)),))


def to_bytes(record: Record) -> bytes:
  """As it is stored. BadRecord where its turns do not fit its images."""
  _check(record.turns, len(record.images))
  example = _example()
  features = example.features.feature
  for name, values in (
    ("key", [record.key.encode("utf-8", "replace")]),
    ("turns", [turns_to_json(record.turns).encode()]),
    ("images", record.images),
  ):
    features[name].bytes_list.SetInParent()  # TFDS wants a list even where it is empty
    features[name].bytes_list.value.extend(values)
  return example.SerializeToString(deterministic=True)


def from_bytes(stored: bytes) -> Record:
  """What `to_bytes` has stored. BadRecord where that is none."""
  example = _example()
  try:
    example.ParseFromString(stored)
    features = {name: list(feature.bytes_list.value) for name, feature in example.features.feature.items()}
    key, turns, images = features["key"][0].decode(), features["turns"][0].decode(), features["images"]
  except Exception as error:
    raise BadRecord(f"no record of a prepared data set: {type(error).__name__}: {error}") from None
  return Record(key, turns_from_json(turns, len(images)), tuple(images))


def _example() -> Any:
  """An empty tf.train.Example. TFDS brings it, and takes a quarter of a second to import."""
  from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

  return tf_example.Example()


def turns_to_json(turns: Sequence[Turn]) -> str:
  return json.dumps([{"role": turn.role, "content": [_part_to_json(part) for part in turn.content]} for turn in turns])


def turns_from_json(text: str, images: int) -> tuple[Turn, ...]:
  """Turns over so many images. BadRecord names what is wrong with them."""
  try:
    stored = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise BadRecord(f"turns are no JSON: {error}") from None
  if not isinstance(stored, list):
    raise BadRecord("turns must be a JSON list")
  turns = tuple(_turn_from_json(turn, f"turn {i}") for i, turn in enumerate(stored))
  _check(turns, images)
  return turns


def _part_to_json(part: Part) -> dict[str, Any]:
  return {"image": part.index} if isinstance(part, Picture) else {"text": list(part.texts)}


def _turn_from_json(stored: Any, where: str) -> Turn:
  if not isinstance(stored, Mapping) or not isinstance(stored.get("content"), list):
    raise BadRecord(f'{where} must be {{"role": …, "content": […]}}')
  return Turn(str(stored.get("role")), tuple(_part_from_json(part, where) for part in stored["content"]))


def _part_from_json(stored: Any, where: str) -> Part:
  match stored:
    case {"image": int(index)} if not isinstance(index, bool):
      return Picture(index)
    case {"text": [*texts]} if texts and all(isinstance(text, str) for text in texts):
      return Text(tuple(texts))
  raise BadRecord(f'{where}: a part is {{"text": ["…", …]}} or {{"image": NUMBER}}')


def _check(turns: Sequence[Turn], images: int):
  """BadRecord unless these are turns over so many images, each of them shown once, in order."""
  if not turns:
    raise BadRecord("a record needs at least one turn")
  for i, turn in enumerate(turns):
    if turn.role not in ROLES:
      raise BadRecord(f"turn {i}: role {turn.role!r} must be one of {', '.join(ROLES)}")
    if not turn.content:
      raise BadRecord(f"turn {i} is empty")
  shown = [part.index for turn in turns for part in turn.content if isinstance(part, Picture)]
  if shown != list(range(images)):
    raise BadRecord(f"the turns show the images {shown}, but the record has {images}, each to be shown once, in order")
