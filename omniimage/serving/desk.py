"""Where requests of all dialects become wishes in the queue."""

import asyncio
import dataclasses
import re
import secrets
from collections.abc import Callable, Sequence

from omniimage.data.conversation import ImageTurn, TextTurn, Turn
from omniimage.errors import SettingsError
from omniimage.ranges import Range, ranges_of
from omniimage.sampling.kept import Redraw
from omniimage.sampling.pictures import read_mask
from omniimage.sampling.prompts import ConversationFull, Part
from omniimage.serving.asks import Wish
from omniimage.serving.engine import Engine
from omniimage.serving.feed import Feed
from omniimage.serving.fields import Fields
from omniimage.serving.limits import Limits
from omniimage.serving.refusals import Refused
from omniimage.serving.studio import Studio
from omniimage.settings import SOLVERS, SamplingSettings

WHOLE = ("top_k", "diffusion_steps", "chunk_rows", "chunk_columns")  # of the settings of sampling
DIGITS = 3  # of the others, behind the point: nobody sees more, and each value is a program to compile
AT_ONCE = 2  # requests whose pictures are decoded
AUTO = "auto"
Redraws = Callable[[Sequence[int]], list[Redraw]]  # of each seed; it decodes the picture
KEEP, SHARE = 0.5, Range(0, 0.99)  # of the visual tokens that a variation keeps


@dataclasses.dataclass(frozen=True)
class Picture:
  """One that a request gives, encoded."""

  encoded: bytes
  is_target: bool = False


@dataclasses.dataclass(frozen=True)
class Order:
  """What was put into the queue.

  Attributes:
    seeds: one an answer.
    tokens: that the prompt has.
  """

  feed: Feed
  seeds: tuple[int, ...]
  tokens: int


class Desk:
  """Attributes:
  decoding: held while pictures of a request are decoded.
  """

  def __init__(self, engine: Engine):
    self.engine = engine
    self.decoding = asyncio.Semaphore(AT_ONCE)

  @property
  def studio(self) -> Studio:
    return self.engine.studio

  @property
  def limits(self) -> Limits:
    return self.engine.limits

  async def order(
    self,
    parts: Sequence[Part | Picture],
    size: str,
    seed: int,
    answers: int,
    answer: str,
    sampling: SamplingSettings,
    previews: bool = False,
    redraw: Redraws | None = None,
  ) -> Order:
    """Asks for so many answers to a conversation, the first with the seed and each other with the next one; `redraw`
    says what of which picture is drawn again with each. Refused where it cannot be answered, or not now."""
    self._check(parts)
    seeds = tuple((seed + i) % 2**64 for i in range(answers))
    async with self.decoding:
      turns = await asyncio.to_thread(self._turns, parts, size)
      redraws = await asyncio.to_thread(redraw, seeds) if redraw else [None] * answers
      wish = Wish(turns, size, seed, answer, sampling, previews, redraws[0])
      try:
        shape, tokens = await asyncio.to_thread(self.studio.shape, wish)
      except ConversationFull as error:
        raise Refused(f"{error}, or begin another conversation") from None
    feed = self.engine.feed(answers)
    wishes = [dataclasses.replace(wish, seed=own, redraw=part) for own, part in zip(seeds, redraws)]
    self.engine.submit(wishes, shape, feed)
    return Order(feed, seeds, tokens)

  def inpainted(self, picture: bytes, mask: bytes, size: str) -> Redraws:
    """What a mask marks is drawn again, with each seed."""
    return lambda seeds: [self.studio.redraw(picture, read_mask(mask, picture), size)] * len(seeds)

  def varied(self, picture: bytes, keep: float, size: str) -> Redraws:
    """Other tokens for each seed."""
    return lambda seeds: self.studio.variations(picture, keep, size, seeds)

  def size(self, typed: str, field: str = "size") -> str:
    """The run's aspect ratio that is meant by one, by pixels of its proportions, or by "auto"."""
    sizes = self.studio.sizes
    found = re.fullmatch(r"(\d{1,5})[x×:](\d{1,5})", typed)
    pixels = {size: self.studio.settings(size).buckets[0].pixels for size in sizes}
    if typed in ("", AUTO):
      return sizes[0]
    if typed in sizes:
      return typed
    if found:
      width, height = map(int, found.groups())
      for size, (own_height, own_width) in pixels.items():
        if width * own_height == height * own_width and width:
          return size
    shown = ", ".join(f"{size} ({width}x{height})" for size, (height, width) in pixels.items())
    raise Refused(
      f"{field}={typed[:40]!r}: this model draws {shown}, and the same proportions under other sizes", field=field
    )

  def seed(self, fields: Fields) -> int:
    """That which is asked for, or any."""
    return fields.whole("seed", secrets.randbits(31))

  def sampling(self, fields: Fields, size: str) -> SamplingSettings:
    """The run's, with what a request changes of it."""
    settings, changes = self.studio.settings(size), {}
    for name, allowed in ranges_of(SamplingSettings).items():
      usual = getattr(settings.sampling, name)
      whole = name in WHOLE
      value = fields.whole(name, usual, allowed) if whole else fields.real(name, usual, allowed)
      changes[name] = value if whole or value == usual else round(value, DIGITS)
    changes["solver"] = fields.one_of("solver", SOLVERS, settings.sampling.solver)
    if changes["diffusion_steps"] > max(self.limits.diffusion_steps, settings.sampling.diffusion_steps):
      raise Refused(f"diffusion_steps may be up to {self.limits.diffusion_steps} here", field="diffusion_steps")
    try:
      changed = dataclasses.replace(settings, sampling=dataclasses.replace(settings.sampling, **changes))
    except SettingsError as error:
      raise Refused(str(error)) from None
    return changed.sampling

  def _check(self, parts: Sequence[Part | Picture]):
    limits = self.limits
    texts = [part if isinstance(part, str) else part.text for part in parts if isinstance(part, str | TextTurn)]
    if len(parts) > limits.turns:
      raise Refused(f"the conversation has {len(parts)} texts and pictures; at most {limits.turns} are read")
    if (given := len(parts) - len(texts)) > limits.pictures:
      raise Refused(f"the conversation has {given} pictures; at most {limits.pictures} are read")
    if sum(map(len, texts)) > limits.characters:
      raise Refused(f"the texts have more than {limits.characters:,} characters; shorten them", 413)

  def _turns(self, parts: Sequence[Part | Picture], size: str) -> tuple[Turn, ...]:
    """Parts with their pictures decoded."""
    turns: list[Turn] = []
    for part in parts:
      is_picture = isinstance(part, Picture)
      (turn,) = self.studio.turns([part.encoded if is_picture else part], size)
      turns.append(ImageTurn(turn.image, part.is_target) if is_picture else turn)
    return tuple(turns)
