"""Data sets of image editing, whose columns `recipes` knows: JSON lines, CSV, Parquet or tar shards.

A picture is bytes, a struct {bytes, path}, a data: URI or a file name, relative to its table or to the source; in a tar
it is the member 0001.src_img.jpg of the column src_img, or one that a json names. The members of a sample are columns,
whatever their endings, and so are the fields of its json.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tarfile import TarFile
from typing import Any

from omniimage.data.formats import inside, listing, tars
from omniimage.data.formats.captions import listed
from omniimage.data.formats.format import Given, Row, Unit
from omniimage.data.formats.pictures import Pictures
from omniimage.data.formats.recipes import RECIPES, Recipe, recipe_of
from omniimage.data.formats.rows import row_of, split_in, units_of
from omniimage.data.formats.survey import Survey
from omniimage.data.formats.tables import TABLES, Parquet, Table, open_table
from omniimage.data.formats.tars import TARS, Members
from omniimage.data.records import BadRecord, Record
from omniimage.errors import UserError


def fits(survey: Survey) -> bool:
  return bool(survey.of_kind("edits"))


def open_edits(source: str, given: Given) -> "Edits":
  """UserError where no file has the columns of a known data set."""
  if given.metadata:
    return Edits(source, [given.metadata], given)
  return Edits(*listing.files(source, (*TABLES, *TARS)), given)


@dataclass(frozen=True)
class File:
  """A table or a shard.

  Attributes:
    problem: why it cannot be read; then the rest is empty.
    recipe: of RECIPES, by its name.
    table: None where it is a tar.
  """

  name: str
  problem: str = ""
  recipe: str = ""
  table: Table | None = None


class Edits:
  """Units are spans of rows, and shards."""

  def __init__(self, root: str, names: Sequence[str], given: Given):
    self._root, self._given = root, given
    self._files = _files(root, names, given)
    self._splits = listing.splits_of(file.name for file in self._files)

  def found(self) -> str:
    recipes = {file.recipe: RECIPES[file.recipe] for file in self._files if file.recipe}
    named = " and ".join(f"{name} has them ({', '.join(sorted(recipe.needs))})" for name, recipe in recipes.items())
    return f"as {named} in {listed([file.name for file in self._files])}"

  def units(self) -> Sequence[Unit]:
    return [unit for i, file in enumerate(self._files) for unit in units_of(file.name, i, file.table)]

  def rows(self, unit: Unit) -> Iterator[Row]:
    i, span = unit.content
    file: File = self._files[i]
    if file.problem:
      yield Row(inside.shown(file.name), problem=inside.shown(file.problem))
    elif span is None:
      yield from tars.rows(self._root, file.name, lambda *sample: self._of_sample(file, *sample))
    else:
      content = inside.beside(self._root, "" if self._given.metadata else os.path.dirname(file.name))
      for line, fields in file.table.rows(span):
        key = f"{file.name}:{line}"
        yield row_of(key, lambda key=key, fields=fields: self._record(file, key, fields, Pictures(content)))

  def fingerprint(self) -> str:
    names = [file.name for file in self._files]
    alone = all(file.table is None or isinstance(file.table, Parquet) for file in self._files)
    return listing.fingerprint(self._root, names if alone else [*names, *listing.walk(self._root)])

  def _record(self, file: File, key: str, fields: Any, pictures: Pictures) -> tuple[Record, str | None]:
    if isinstance(fields, BadRecord):
      raise fields
    recipe: Recipe = RECIPES[file.recipe]
    if absent := recipe.needs - set(fields):
      raise BadRecord(f"there is no {' and no '.join(sorted(absent))}; it has {listed(fields)}")
    split = split_in(fields, self._given.split_column, self._splits[file.name])
    turns = recipe.turns(fields, pictures)
    return Record(inside.shown(key), turns, tuple(pictures.images)), split

  def _of_sample(self, file: File, tar: TarFile, key: str, members: Members) -> tuple[Record, str | None]:
    fields = tars.columns_of(tar, members)
    return self._record(file, key, fields, Pictures(lambda name: _member(name, fields)))


def _files(root: str, names: Sequence[str], given: Given) -> list[File]:
  """Those of edits, and those that cannot be read. UserError where there are none of edits."""
  shards = [name for name in names if listing.suffix(name) in TARS]
  of_shards = next(filter(None, (recipe_of(tars.columns(str(Path(root, name)))) for name in shards)), "")
  files = [File(name, recipe=of_shards) for name in shards if of_shards]  # all shards of a set are alike
  others = {}
  for name in [name for name in names if listing.suffix(name) not in TARS]:
    try:
      table = open_table(str(Path(root, name)))
      columns = table.columns()
    except UserError as error:
      files.append(File(name, str(error)))
      continue
    if recipe := recipe_of(columns):
      _require_split(name, columns, given)
      if isinstance(table, Parquet):
        table.only({*RECIPES[recipe].reads, given.split_column})
      files.append(File(name, recipe=recipe, table=table))
    else:
      others[name] = columns
  if not any(file.recipe for file in files):
    raise UserError(_why_none(root, files, others))
  return files


def _why_none(root: str, broken: Sequence[File], others: Mapping[str, Sequence[str]]) -> str:
  if broken and not others:
    return f"no file of {root} can be read: {broken[0].problem}"
  name, columns = next(iter(others.items()), (root, []))
  known = "; ".join(f"{known}: {', '.join(sorted(recipe.needs))}" for known, recipe in RECIPES.items())
  return f"{name} has the columns of no known set of edits; it has {listed(columns)}; name them as one of {known}"


def _require_split(name: str, columns: Sequence[str], given: Given):
  if given.split_column and given.split_column not in columns:
    raise UserError(f"{name} has no {given.split_column!r}; it has {listed(columns)}; give --split_column=NAME")


def _member(name: str, fields: Mapping[str, Any]) -> bytes:
  """A member of the sample that a json of it names: as a whole, "0001.0.jpg", or by its field, "0.jpg"."""
  base = name.replace("\\", "/").rpartition("/")[2].lower()
  content = next((fields[field] for field in (base, base.partition(".")[2]) if field in fields), None)
  if not isinstance(content, bytes):
    raise BadRecord(f"the sample has no member {inside.shown(name)}; it has {listed(fields)}")
  return content
