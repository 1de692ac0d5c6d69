"""Data sets of TFDS, by name (`cifar10`, `tfds:coco_captions:1.1.0`) or directory; read without TensorFlow.

`mapping` says what becomes of their features, in the order of the turns: a feature, or a template over features, and
the role of who shows or says it.

  {"captions/text": "user", "image": "assistant"}                          a picture of a caption; they are alternatives
  {"image": "user", "question": "user", "answer": "assistant"}             questions about pictures
  {"a photo of a {label}": "user", "image": "assistant"}                   labels are their classes' names

Without a mapping: the recipe of its name below, or the columns given, or the only image with the first of the features
that may be its caption. Nothing is downloaded.
"""

import functools
import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omniimage.data.formats import listing
from omniimage.data.formats.captions import DEFAULT_COLUMNS, Captions, listed
from omniimage.data.formats.format import Given, Row, Unit
from omniimage.data.formats.inside import shown
from omniimage.data.formats.rows import row_of
from omniimage.data.formats.survey import Survey
from omniimage.data.formats.tables import UNIT_ROWS
from omniimage.data.records import ROLES, BadRecord, Part, Picture, Record, Text, Turn
from omniimage.errors import UserError

PREFIX = "tfds:"
INFO = "dataset_info.json"  # of a directory that TFDS reads
RECIPES: Mapping[str, Mapping[str, str]] = {
  "coco_captions": {"captions/text": "user", "image": "assistant"},
  "cifar10": {"label": "user", "image": "assistant"},
  "oxford_flowers102": {"label": "user", "image": "assistant"},
}
Parts = list[tuple[str, str | Captions]]  # (role, the feature of an image or how a text is made) in order
CAPTIONS = (*DEFAULT_COLUMNS, "captions/text", "label")


def fits(survey: Survey) -> bool:
  source = survey.source
  if source.startswith(PREFIX):
    return True
  if os.path.isdir(source):
    return bool(_directories(source))
  return not os.path.exists(source) and _name_of(source) in RECIPES


def open_tfds(source: str, given: Given) -> "TfdsFormat":
  """UserError where it is not on disk, is not stored as ArrayRecord, or a feature is not there."""
  return TfdsFormat(_find(source.removeprefix(PREFIX)), given)


class TfdsFormat:
  """Units are ranges of a split's examples."""

  def __init__(self, directory: str, given: Given):
    self._directory = directory
    builder = _builder(directory)
    self._name = builder.name
    self._features = dict(_flat(builder.info.features))
    self._sizes = {name: split.num_examples for name, split in builder.info.splits.items() if split.num_examples}
    if not self._sizes:
      raise UserError(f"{directory} has no examples; generate it again")
    if builder.info.file_format.value != "array_record":
      raise UserError(
        f"{directory} is stored as {builder.info.file_format.value}, which needs TensorFlow; store it as ArrayRecord: "
        f"tfds convert_format --dataset_dir={directory} --out_file_format=array_record --out_dir=DIR"
      )
    self._images = [path for path, (kind, _) in self._features.items() if kind == "Image"]
    self._parts = self._mapped(given.mapping) if given.mapping else self._usual(given)
    self._splits = listing.splits_of(self._sizes)

  def found(self) -> str:
    parts = [(role, part.found if isinstance(part, Captions) else part) for role, part in self._parts]
    return f"{self._name}: " + ", ".join(f"{feature} from the {role}" for role, feature in parts)

  def units(self) -> Sequence[Unit]:
    return [
      Unit(f"{split}:{start}", (split, start, min(start + UNIT_ROWS, size)), min(UNIT_ROWS, size - start))
      for split, size in self._sizes.items()
      for start in range(0, size, UNIT_ROWS)
    ]

  def rows(self, unit: Unit) -> Iterator[Row]:
    split, start, stop = unit.content
    for i in range(start, stop):
      key = f"{self._name}/{split}:{i}"
      yield row_of(key, lambda key=key, i=i: (self._record(key, split, i), self._splits[split]))

  def fingerprint(self) -> str:
    return listing.fingerprint(self._directory, listing.walk(self._directory))

  def _usual(self, given: Given) -> Parts:
    """Of the recipe, or of the columns given, or of what the features are called. UserError where none of it helps."""
    if not given.image_column and not given.caption_columns and self._name in RECIPES:
      return self._mapped(RECIPES[self._name])
    captions = list(given.caption_columns) or [name for name in CAPTIONS if name in self._features][:1]
    images = [given.image_column] if given.image_column else self._images
    if len(images) != 1 or images[0] not in self._images or not captions:
      raise UserError(
        f"{self._name} has the features {listed(self._features)}; say with --map who shows or says which of them, as "
        "captions/text=user and image=assistant"
      )
    return [("user", self._captions(captions)), ("assistant", images[0])]

  def _mapped(self, mapping: Mapping[str, str]) -> Parts:
    """UserError where there is no such role or feature."""
    for role in mapping.values():
      if role not in ROLES:
        raise UserError(f"--map: a feature is mapped to {role!r}; expected {' or '.join(ROLES)}")
    return [
      (role, feature if feature in self._images else self._captions([feature])) for feature, role in mapping.items()
    ]

  def _captions(self, features: Sequence[str]) -> Captions:
    return Captions(features, [name for name in self._features if name not in self._images], self._name)

  def _record(self, key: str, split: str, i: int) -> Record:
    example = self._example(split, i)
    images: list[bytes] = []
    turns: list[Turn] = []
    for role, part in self._parts:
      content = self._content(part, example, images)
      if turns and turns[-1].role == role:
        content = (*turns.pop().content, *content)
      turns.append(Turn(role, content))
    return Record(shown(key), tuple(turns), tuple(images))

  def _content(self, part: str | Captions, example: Mapping[str, Any], images: list[bytes]) -> tuple[Part, ...]:
    if isinstance(part, Captions):
      return (Text(part.of(example)),)
    found = [image for image in example.get(part, ()) if image]
    if not found:
      raise BadRecord(f"no picture: {part} is empty")
    images += found
    return tuple(Picture(len(images) - len(found) + i) for i in range(len(found)))

  def _example(self, split: str, i: int) -> dict[str, list]:
    """Values by the path of their feature; labels are the names of their classes."""
    from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

    try:
      example = tf_example.Example.FromString(_examples(self._directory, split)[i])
    except Exception as error:  # of the reader or the parser, whatever is wrong with the file
      raise BadRecord(f"truncated: it cannot be read: {type(error).__name__}: {error}") from None
    values = {}
    for name, feature in example.features.feature.items():
      kind = feature.WhichOneof("kind")
      values[name] = list(getattr(feature, kind).value) if kind else []
      _, classes = self._features.get(name, ("", ()))
      if classes:
        values[name] = [classes[number] if 0 <= number < len(classes) else None for number in values[name]]
    return values


def _find(source: str) -> str:
  """The directory of a data set on disk. UserError where there is none, with how to get it."""
  from tensorflow_datasets.core import naming, read_only_builder

  if os.path.isdir(source):
    directories = _directories(source)
    if not directories:
      raise UserError(f"{source} has no {INFO}, as data sets of TFDS have; give the directory of one, or its name")
    if len(directories) > 1:
      raise UserError(f"{source} has several data sets of TFDS, {listed(directories)}; give the directory of one")
    return os.path.join(source, directories[0])
  try:
    name, options = naming.parse_builder_name_kwargs(source)
    return str(read_only_builder.builder_from_files(str(name), **options).data_dir)
  except Exception:  # of many kinds, none of which says what to do
    raise UserError(
      f"{shown(source)!r} is no TFDS data set on this disk, and nothing is downloaded unasked; get it with: python -c "
      f'"import tensorflow_datasets as tfds; tfds.data_source({source!r})", or give its directory, that of {INFO}'
    ) from None


def _directories(source: str) -> list[str]:
  """Those with a data set in a directory: itself, or its versions and configs; relative to it."""
  found = [path for depth in ("", "*/", "*/*/") for path in glob.glob(f"{depth}{INFO}", root_dir=source)]
  return sorted(map(os.path.dirname, found))


def _name_of(source: str) -> str:
  return source.split(":")[0].split("/")[0]


def _builder(directory: str) -> Any:
  import tensorflow_datasets as tfds

  try:
    return tfds.builder_from_directory(directory)
  except Exception as error:
    reason = " ".join(str(error).split())[:200]
    raise UserError(f"{directory} is no data set that TFDS reads: {reason}; generate it again") from None


@functools.lru_cache(maxsize=8)
def _examples(directory: str, split: str) -> Sequence[bytes]:
  """The examples of a split, as they are stored; once a process."""
  import tensorflow_datasets as tfds

  stored = tfds.decode.DeserializeMethod.RAW_BYTES
  return tfds.builder_from_directory(directory).as_data_source(split, deserialize_method=stored)


def _flat(features: Any, path: str = "") -> Iterator[tuple[str, tuple[str, tuple[str, ...]]]]:
  """(path, (the kind of feature, the names of a label's classes)) of every feature, as they are stored."""
  import tensorflow_datasets as tfds

  if isinstance(features, tfds.features.FeaturesDict):
    for name, inner in features.items():
      yield from _flat(inner, f"{path}/{name}" if path else name)
  elif isinstance(features, tfds.features.Sequence):
    yield from _flat(features.feature, path)
  else:
    labels = isinstance(features, tfds.features.ClassLabel)
    yield (
      path,
      (type(features).__name__, tuple(map(features.int2str, range(features.num_classes or 0))) if labels else ()),
    )
