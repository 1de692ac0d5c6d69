"""One vocabulary: text ids | special tokens | image codes | (reserved) audio codes.

A sequence is turns: <user> part … part | <assistant> part … part <eos>. A part is text, or <image> rows columns code …
code </image> with exactly rows × columns codes in raster order. Sizes are special tokens, so the model reads and says
how large an image is before its first code. What the grammar puts around parts and codes is counted here, for all that
must know how long a sequence becomes.
"""

import dataclasses
import itertools
from collections.abc import Iterable

from omniimage.size import Size

ROLES = USER, ASSISTANT = "user", "assistant"  # who says a turn

MAX_GRID = 128  # largest number of token rows or columns a size token can name
OPENING = 3  # tokens of an image before its first code: <image> rows columns


def image_length(size: Size) -> int:
  """Tokens of an image, from `<image>` to `</image>`."""
  return OPENING + size.tokens + 1


def turns_length(roles: Iterable[str]) -> int:
  """Tokens that begin and end turns, where these say one part after the other: parts of one role that follow one
  another are one turn."""
  turns = [role for role, _ in itertools.groupby(roles)]
  return len(turns) + turns.count(ASSISTANT)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
  """Arithmetic of token ids. Everything below `codes` lives in the text table of the prior, everything above in the
  image table; audio codes, when they come, follow the image codes, so that no id ever moves.

  Attributes:
    text_size: ids of the text tokenizer, 0 ≤ id < text_size.
    image_codes: size of the image tokenizer's codebook.
    unwritten: text ids that no text has, `TextTokenizer.unwritten`: nobody has trained them, and none is sampled.
  """

  text_size: int
  image_codes: int
  unwritten: tuple[int, ...] = ()

  @property
  def pad(self) -> int:
    return self.text_size

  @property
  def eos(self) -> int:
    """The assistant's turn has ended."""
    return self.text_size + 1

  @property
  def image(self) -> int:
    """`<image>`: an image begins."""
    return self.text_size + 2

  @property
  def end_image(self) -> int:
    """`</image>`: it has ended."""
    return self.text_size + 3

  @property
  def user(self) -> int:
    """`<user>`: the user's turn begins."""
    return self.text_size + 4

  @property
  def assistant(self) -> int:
    """`<assistant>`: the assistant's turn begins."""
    return self.text_size + 5

  @property
  def sizes(self) -> int:
    """First size token; `size(n)` names a grid of n rows or columns."""
    return self.text_size + 6

  @property
  def codes(self) -> int:
    """First image code; also the placeholder the data writes where the step will put codes."""
    return self.sizes + MAX_GRID

  @property
  def text_and_specials(self) -> int:
    """Number of ids in the text table."""
    return self.codes

  @property
  def total(self) -> int:
    return self.codes + self.image_codes

  def turn(self, role: str) -> int:
    """The token that begins a turn of one of ROLES."""
    return {USER: self.user, ASSISTANT: self.assistant}[role]

  def opening(self, rows: int, columns: int) -> list[int]:
    """What stands before the codes of an image. ValueError outside 1..MAX_GRID."""
    return [self.image, self.size(rows), self.size(columns)]

  def size(self, n: int) -> int:
    """The token that names a grid of `n` rows or columns. ValueError outside 1..MAX_GRID."""
    if not 1 <= n <= MAX_GRID:
      raise ValueError(f"an image has 1 to {MAX_GRID} token rows and columns, got {n}; use a larger patch_size")
    return self.sizes + n - 1
