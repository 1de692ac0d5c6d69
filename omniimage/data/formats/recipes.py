"""How the data sets of image editing name their columns, and which turns a row of each becomes.

A new one is a row of RECIPES, and where its rows are of a new shape a class beside these. A user shows and asks, the
assistant draws; several instructions for one picture say the same, and one of them is drawn at each reading.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from omniimage.data.formats.captions import texts
from omniimage.data.formats.pictures import Pictures, is_empty
from omniimage.data.records import BadRecord, Part, Text, Turn

PLACE = re.compile(r"(?:<img>)?<\|image_(\d+)\|>(?:</img>)?")  # of a picture in OmniGen's instructions, from 1


class Recipe(Protocol):
  """The columns of a data set.

  Attributes:
    needs: by which it is told from others.
    reads: these, and those that may be absent.
  """

  needs: frozenset[str]
  reads: frozenset[str]

  def turns(self, fields: Mapping[str, Any], pictures: Pictures) -> tuple[Turn, ...]:
    """Of a row, its pictures read in order. BadRecord names the column that is wrong."""


@dataclass(frozen=True)
class Edit:
  """One edit a row: pictures, what to do with them, and what it looks like done.

  Attributes:
    shown: columns of the pictures that are given; each has one, or a list.
    told: column of the instruction, or of a list that says it in several ways.
    drawn: column of the picture that answers.
    may_show: columns of further pictures, which a row may lack.
    known_by: columns that are not read, without which the set may be another.
  """

  shown: tuple[str, ...]
  told: str
  drawn: str
  may_show: tuple[str, ...] = ()
  known_by: tuple[str, ...] = ()

  @property
  def needs(self) -> frozenset[str]:
    return frozenset((*self.shown, self.told, self.drawn, *self.known_by))

  @property
  def reads(self) -> frozenset[str]:
    return self.needs | set(self.may_show)

  def turns(self, fields: Mapping[str, Any], pictures: Pictures) -> tuple[Turn, ...]:
    given = [entry for column in self.shown for entry in _entries(fields, column)]
    given += [
      entry for column in self.may_show if not is_empty(fields.get(column)) for entry in _entries(fields, column)
    ]
    asked = self._asked(given, _said(fields.get(self.told), self.told), pictures)
    return Turn("user", tuple(asked)), Turn("assistant", (pictures.read(fields.get(self.drawn), self.drawn),))

  def _asked(self, given: list[tuple[str, Any]], said: Text, pictures: Pictures) -> list[Part]:
    """The pictures, then the words."""
    return [*(pictures.read(value, field) for field, value in given), said]


class PlacedEdit(Edit):
  """One whose words may say where each of the pictures stands, `<img><|image_1|></img>`; without pictures or places,
  they are words like any other (OmniGen, Xiao et al. 2024)."""

  def _asked(self, given: list[tuple[str, Any]], said: Text, pictures: Pictures) -> list[Part]:
    text = said.texts[0]
    places = [int(number) for number in PLACE.findall(text)]
    if not given or not places or len(said.texts) > 1:
      return super()._asked(given, said, pictures)
    if sorted(places) != list(range(1, len(given) + 1)):
      raise BadRecord(
        f"{self.told} has places for the pictures {places}, but there are {len(given)}; each needs one place"
      )
    parts: list[Part] = []
    for i, piece in enumerate(PLACE.split(text)):  # words, number, words, …
      if i % 2:
        field, value = given[int(piece) - 1]
        parts.append(pictures.read(value, field))
      elif piece.strip():
        parts.append(Text((piece.strip(),)))
    return parts


@dataclass(frozen=True)
class Steps:
  """Several edits a row, each of what the one before has drawn (Bagel, Deng et al. 2025): n pictures, and between each
  two of them the instruction that leads from one to the next, or several that say the same.

  Attributes:
    pictures, instructions: columns with a list each.
  """

  pictures: str
  instructions: str

  @property
  def needs(self) -> frozenset[str]:
    return frozenset((self.pictures, self.instructions))

  reads = needs

  def turns(self, fields: Mapping[str, Any], pictures: Pictures) -> tuple[Turn, ...]:
    (_, first), *others = shown = _entries(fields, self.pictures)
    told = fields.get(self.instructions)
    if not isinstance(told, list):
      raise BadRecord(f"{self.instructions} must be a list with an entry, a text or a list of texts, for each step")
    if not told or len(others) != len(told):
      raise BadRecord(
        f"{self.pictures} has {len(shown)} pictures and {self.instructions} {len(told)} entries; "
        "an instruction leads from each picture to the next"
      )
    turns, start = [], [pictures.read(first, f"{self.pictures}[0]")]
    for i, (said, (field, drawn)) in enumerate(zip(told, others)):
      turns.append(Turn("user", (*start, _said(said, f"{self.instructions}[{i}]"))))
      turns.append(Turn("assistant", (pictures.read(drawn, field),)))
      start = []
    return tuple(turns)


RECIPES: Mapping[str, Recipe] = {
  "Bagel": Steps("image_list", "instruction_list"),
  "OmniEdit": Edit(("src_img",), "edited_prompt_list", "edited_img"),
  "InstructPix2Pix": Edit(("original_image",), "edit_prompt", "edited_image"),
  "UltraEdit": Edit(("source_image",), "edit_prompt", "edited_image"),
  "MagicBrush": Edit(("source_img",), "instruction", "target_img"),
  "HQ-Edit": Edit(("input_image",), "edit", "output_image"),
  "AnyEdit": Edit(("image_file",), "edit_instruction", "edited_file", may_show=("visual_input",)),
  "ShareGPT-4o-Image": Edit(("input_image",), "input_prompt", "output_image"),
  # Alpaca's texts have these columns too, but for the last.
  "GPT-Image-Edit": Edit(("input",), "instruction", "output", known_by=("instruction_type",)),
  # Also of OmniGen (X2I), OmniGen2 (X2I2) and Echo-4o-Image; rows without pictures ask in words alone.
  "OmniGen2": PlacedEdit((), "instruction", "output_image", may_show=("input_images",)),
}


def recipe_of(columns: Collection[str]) -> str:
  """The first data set of the table whose columns are among these; empty where there is none."""
  return next((name for name, recipe in RECIPES.items() if recipe.needs <= set(columns)), "")


def _entries(fields: Mapping[str, Any], column: str) -> list[tuple[str, Any]]:
  """(field for messages, reference) of each picture of a column that has one or a list. BadRecord where none."""
  value = fields.get(column)
  if is_empty(value):
    raise BadRecord(f"no picture: {column} is empty")
  if not isinstance(value, list):
    return [(column, value)]
  return [(f"{column}[{i}]", entry) for i, entry in enumerate(value)]


def _said(value: Any, field: str) -> Text:
  """An instruction with its alternatives. BadRecord where it says nothing."""
  said = tuple(dict.fromkeys(texts(value, field)))
  if not said:
    raise BadRecord(f"{field} says nothing")
  return Text(said)
