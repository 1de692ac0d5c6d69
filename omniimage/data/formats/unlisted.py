"""A folder of pictures without a list: captions in .txt files beside them, or classes as folders."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from omniimage.data.formats import inside, listing
from omniimage.data.formats.captions import Captions, listed
from omniimage.data.formats.format import Given, Row, Unit
from omniimage.data.formats.rows import row_of
from omniimage.data.formats.tables import UNIT_ROWS
from omniimage.data.records import BadRecord, Record, captioned
from omniimage.errors import UserError


class UnlistedFolder:
  """Units are runs of files: pictures, texts without a picture, links that lead out of the data set."""

  def __init__(self, root: str, names: Sequence[str], given: Given):
    """UserError where there are no pictures, or no captions."""
    self._root = root
    pictures = [name for name in names if listing.is_picture(name)]
    others = (name for name in names if not listing.is_picture(name) and listing.suffix(name) != ".txt")
    for flag, value in (("image_column", given.image_column), ("split_column", given.split_column)):
      if value:
        raise UserError(
          f"--{flag}={value} needs a list of the pictures, but {root} has none; name it with --metadata=FILE"
        )
    links = [name for name in others if os.path.isdir(Path(root, name))]
    if not pictures:
      also = f" (the link {inside.shown(links[0])} is not followed)" if links else ""
      raise UserError(f"{root} has no pictures{also}; expected .jpg, .jpeg, .png or .webp files")
    self._texts = {_stem(name): name for name in names if listing.suffix(name) == ".txt"}
    self._has_texts = any(_stem(name) in self._texts for name in pictures)
    self._shared = _shared_folders(pictures)
    self._split_folders = self._find_split_folders(pictures)
    self._splits = listing.splits_of(self._split_folders)
    self._labels = set() if self._has_texts else self._require_classes(pictures)
    field = "text" if self._has_texts else "label"
    self._captions = Captions(given.caption_columns or [field], [field, "file_name"], f"a picture in {root}")
    stems = set(map(_stem, pictures))
    alone = [name for stem, name in self._texts.items() if stem not in stems] if self._has_texts else []
    self._names = sorted([*pictures, *alone, *filter(self._leads_outside, links)], key=os.fsencode)

  def found(self) -> str:
    return "pictures with a .txt beside each" if self._has_texts else f"pictures of classes: {listed(self._labels)}"

  def units(self) -> Sequence[Unit]:
    return [
      Unit(f"files {i * UNIT_ROWS}", names, len(names))
      for i, names in enumerate(listing.batched(self._names, UNIT_ROWS))
    ]

  def rows(self, unit: Unit) -> Iterator[Row]:
    for name in unit.content:
      yield row_of(name, lambda name=name: self._record(name))

  def fingerprint(self) -> str:
    return listing.fingerprint(self._root, listing.walk(self._root))

  def _record(self, name: str) -> tuple[Record, str | None]:
    if listing.suffix(name) == ".txt":
      raise BadRecord("no picture beside this text")
    image = inside.read(self._root, name)
    fields = {"file_name": name}
    if self._has_texts:
      text = self._texts.get(_stem(name))
      if text is None:
        raise BadRecord(f"no caption: there is no {_stem(os.path.basename(name))}.txt beside it")
      fields["text"] = inside.read(self._root, text, may_be_empty=True)
    else:
      fields["label"] = self._label(name)
      if not fields["label"]:
        raise BadRecord("no caption: it lies in no folder that is named after what it shows")
    return captioned(inside.shown(name), self._captions.of(fields), image), self._split(name)

  def _folders(self, name: str) -> tuple[str, ...]:
    """Of a picture, below those that all pictures share."""
    return tuple(name.split("/")[self._shared : -1])

  def _find_split_folders(self, pictures: Sequence[str]) -> set[str]:
    """The top folders, if all are named after splits; where others are not, train may be a class."""
    tops = {folder for name in pictures for folder in self._folders(name)[:1]}
    return tops if all(map(listing.split_of_value, tops)) else set()

  def _split(self, name: str) -> str | None:
    return next((self._splits.get(folder) for folder in self._folders(name)[:1]), None)

  def _label(self, name: str) -> str:
    folders = self._folders(name)
    if folders[:1] and folders[0] in self._split_folders:
      folders = folders[1:]
    return folders[-1].replace("_", " ").strip() if folders else ""

  def _require_classes(self, pictures: Sequence[str]) -> set[str]:
    """The classes. UserError where there are none."""
    labels = {label for name in pictures if (label := self._label(name))}
    if len(labels) < 2:  # one folder, "images" perhaps, says nothing of what its pictures show
      raise UserError(
        f"no caption: {self._root} has {len(pictures)} pictures, but no metadata.jsonl, metadata.csv or "
        "metadata.parquet, no .txt beside any of them, and no two folders named after what they show; write one of "
        "these, or name the list with --metadata=FILE"
      )
    return labels

  def _leads_outside(self, link: str) -> bool:
    return not Path(self._root, link).resolve().is_relative_to(Path(self._root).resolve())


def _stem(name: str) -> str:
  return os.path.splitext(name)[0]


def _shared_folders(names: Sequence[str]) -> int:
  """How many folders, from the top, all of them lie in."""
  shared = os.path.commonpath([os.path.dirname(name) for name in names])
  return len(shared.split("/")) if shared else 0
