"""1,852 emoji at 64 pixels with captions: the small real-image set that ships with the package.

The drawings are Microsoft Fluent Emoji (MIT), the words emojibase (MIT); their notices lie in `emoji_files/`.
Train and test are split by what is drawn, so that no technologist is held out while a man technologist is trained: by a
hash of the code points of a concept's family, which survives any reordering of the files.
"""

import functools
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

FILES = Path(__file__).parent / "emoji_files"
SIZE = 64  # pixels a side
MAX_TAGS = 3  # tags a caption may add to the label
SPLITS = ("train", "test")

PHRASINGS = ("{name}", "{thing}", "emoji: {name}", "an emoji of {thing}", "a 3d icon: {name}", "a 3d icon of {thing}")
TAGS_ONLY = "a 3d icon: "
TAGS_ONLY_RATE = 0.1  # share of the captions with two tags or more that leave the label out

JOINER = "-200d-"
# Code points that only vary what is drawn: presentation, skin tones and the signs of the sexes.
_VARIATIONS = {"fe0f", "2640", "2642", *(f"1f3f{digit}" for digit in "bcdef")}
# Man, woman → person; boy, girl → child; old man, old woman → older person.
_PERSONS = {"1f468": "1f9d1", "1f469": "1f9d1", "1f466": "1f9d2", "1f467": "1f9d2", "1f474": "1f9d3", "1f475": "1f9d3"}
# Drawings that are alike though their code points do not say so → the one that their family is named after.
_ALIKE = {
  **dict.fromkeys(("1f934", "1f478"), "1fac5"),  # prince, princess → person with crown
  **dict.fromkeys(("1f385", "1f936"), "1f9d1-200d-1f384"),  # Santa, Mrs. Claus → Mx Claus
  **dict.fromkeys(("1f930", "1fac3"), "1fac4"),  # pregnant woman, man → person
  **dict.fromkeys(("1f46b", "1f46c", "1f46d"), "1f9d1-200d-1f91d-200d-1f9d1"),  # people holding hands
  "1f57a": "1f483",  # man → woman dancing
  "1f431": "1f63a",  # cat face → grinning cat, to the pixel
  "26c4": "2603",  # snowman without → with snow
}
# Persons joined with a kiss, with a heart, with children → kiss, couple with heart, family.
_GROUPS = (({"1f9d1", "1f48b"}, "1f48f"), ({"1f9d1", "2764"}, "1f491"), ({"1f9d1", "1f9d2"}, "1f46a"))

_TAKES_THE = re.compile(
  r"(Islands|Republic|Territory|Territories|Emirates|Nations|Union|Kingdom|States|Man"
  r"|Netherlands|Philippines|Bahamas|Maldives|Comoros|Gambia)$"
)
# Nouns that can be counted: a name with one of them is sure to bear "a" ("a kissing face", but "ice", "pancakes").
_TAKES_AN_ARTICLE = re.compile(
  r"(^| )(face|cat|monkey|heart|hand|man|woman|person|boy|girl|child|baby|worker|officer|teacher|student|judge|farmer"
  r"|cook|mechanic|scientist|singer|artist|pilot|astronaut|firefighter|detective|guard|superhero|fairy|vampire|elf"
  r"|zombie|family|couple|kiss|dog|bird|fish|tree|flower|leaf|moon|star|cloud|house|building|clock|train|car|bus|boat"
  r"|ship|balloon|ball|trophy|medal|hat|shoe|bag|box|book|bottle|glass|bowl|cake|button|arrow|circle|square|triangle"
  r"|diamond|sign|symbol|mark|lamp|lock|hammer|bell|drum|guitar|flag)( |$)"
)


@dataclass(frozen=True)
class Concept:
  """One emoji: its code points ("1f600", "1f468-200d-1f33e"), and emojibase's words for it, unchanged."""

  hexcode: str
  label: str
  tags: tuple[str, ...]
  group: str
  split: str


@dataclass(frozen=True)
class EmojiSet:
  """`images[i]` (64, 64, 3) uint8, on white, draws `concepts[i]`."""

  images: np.ndarray
  concepts: tuple[Concept, ...]


def split_of(hexcode: str) -> str:
  """The split of a concept, and of all its family; about one family in twenty is held out, the same ones forever."""
  return "test" if is_held_out(family_of(hexcode)) else "train"


def is_held_out(hexcode: str) -> bool:
  """Whether a hash of the code points is one in twenty."""
  return int(hashlib.sha256(hexcode.encode()).hexdigest(), 16) % 20 == 0


def family_of(hexcode: str) -> str:
  """Code points of the concept that those which draw the same thing share: of other sexes, ages or skin tones, couples
  and families of any members. One that stands alone is its own."""
  parts = [
    "-".join(_PERSONS.get(point, point) for point in part.split("-") if point not in _VARIATIONS)
    for part in hexcode.split(JOINER)
  ]
  parts = [part for part in parts if part]
  for members, group in _GROUPS:
    if members <= set(parts):
      return group
  family = JOINER.join(parts) or hexcode  # the signs of the sexes themselves
  return _ALIKE.get(family, family)


@functools.lru_cache(maxsize=1)
def load() -> EmojiSet:
  """The whole set, decoded once a process; the images are read-only."""
  with open(FILES / "concepts.jsonl", encoding="utf-8") as lines:
    records = [json.loads(line) for line in lines]
  concepts = tuple(
    Concept(r["hexcode"], r["label"], tuple(r["tags"]), r["group"], split_of(r["hexcode"])) for r in records
  )
  with Image.open(FILES / "sheet.webp") as image:
    sheet = np.asarray(image.convert("RGB"))
  rows, columns = sheet.shape[0] // SIZE, sheet.shape[1] // SIZE
  tiles = sheet.reshape(rows, SIZE, columns, SIZE, 3).swapaxes(1, 2).reshape(-1, SIZE, SIZE, 3)
  images = tiles[: len(concepts)]
  images.flags.writeable = False
  return EmojiSet(images, concepts)


def indices(split: str) -> np.ndarray:
  """Which images of `load()` belong to "train" or "test"."""
  if split not in SPLITS:
    raise ValueError(f"emoji: there is no split {split!r}; give one of {', '.join(SPLITS)}")
  return np.flatnonzero([concept.split == split for concept in load().concepts])


def caption(concept: Concept, rng: np.random.Generator) -> str:
  """One of several phrasings of the label with up to three of its tags; seldom the tags alone."""
  tags = spoken_tags(concept)
  chosen = [tags[i] for i in rng.permutation(len(tags))[: rng.integers(MAX_TAGS + 1)]]
  if len(chosen) >= 2 and rng.random() < TAGS_ONLY_RATE:
    return TAGS_ONLY + ", ".join(chosen)
  phrases = _phrases(concept)
  return ", ".join([phrases[rng.integers(len(phrases))], *chosen])


def caption_bound(concept: Concept, count_tokens: Callable[[str], int]) -> int:
  """No caption of this concept has more tokens: the longest phrasing and tags, each tag counted with its comma."""
  phrasing = max(count_tokens(phrase) for phrase in (*_phrases(concept), TAGS_ONLY))
  tags = sorted((count_tokens(", " + tag) for tag in spoken_tags(concept)), reverse=True)
  return phrasing + sum(tags[:MAX_TAGS])


def spoken_tags(concept: Concept) -> tuple[str, ...]:
  """The tags a person might say: those that add a word to the name.

  Left out are country codes and signs, and the sexes, which emojibase gives to "woman walking" and "snowman" alike.
  """
  said = set(re.findall(r"[\w'-]+", name_of(concept.label).lower())) | {"man", "men", "woman", "lady"}
  tags = (tag.replace("’", "'") for tag in concept.tags)
  return tuple(tag for tag in tags if len(tag) > 2 and tag[0].isalnum() and tag.lower() not in said)


def name_of(label: str) -> str:
  """The label as English, without an article: "man: bald" is a bald man, "flag: Bahamas" a flag of the Bahamas."""
  label = label.replace("’", "'").replace("“", '"').replace("”", '"').replace(" & ", " and ")
  head, _, rest = label.partition(": ")
  if not rest:
    return label
  if head == "flag":
    return f"flag of the {rest}" if _TAKES_THE.search(rest) else f"flag of {rest}"
  if head == "keycap":
    return f"keycap {rest}"
  if head in ("person", "man", "woman"):
    return f"bald {head}" if rest == "bald" else f"{head} with {'a beard' if rest == 'beard' else rest}"
  *most, last = [f"a {member}" for member in rest.split(", ")]
  return f"{head} {'of' if head == 'family' else 'between'} {', '.join(most)} and {last}"


def _phrases(concept: Concept) -> tuple[str, ...]:
  name = name_of(concept.label)
  if concept.label.startswith("flag: "):
    thing = f"the {name}"
  elif _TAKES_AN_ARTICLE.search(name):
    thing = f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"
  else:
    thing = name
  return tuple(phrasing.format(name=name, thing=thing) for phrasing in PHRASINGS)
