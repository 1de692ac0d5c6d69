"""A trained model in each size that it draws: which wishes it can grant, at which shapes, and how."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from omniimage import streams
from omniimage.chat.learnt import Learnt, learnt
from omniimage.data.conversation import Turn
from omniimage.data.text import TextTokenizer
from omniimage.errors import UserError
from omniimage.models.adapter import READ
from omniimage.sampling.context import bucket
from omniimage.sampling.events import Codes, Event
from omniimage.sampling.generate import Generator
from omniimage.sampling.kept import Redraw, variation
from omniimage.sampling.pictures import read_part, read_picture
from omniimage.sampling.prompts import Part, as_turns, read_turns, room_before_image
from omniimage.sampling.session import form_of
from omniimage.serving.asks import Preview, Wish
from omniimage.settings import SamplingSettings, Settings
from omniimage.streams import Stream
from omniimage.systems import open_generator, open_system
from omniimage.vocabulary import OPENING
from omniimage.workdir import Run

PLACES = 64  # the shortest that prompts are filled up to; then twice as many, up to the row's room

Step = list[list[Event | Preview]]  # of one step, what each of the wishes hears


class Shape(NamedTuple):
  """What a wish is computed with.

  Attributes:
    is_drawing: whether it is one image, which is drawn together with others, or a session of its own.
    places: that its prompt takes.
    reads_features: whether it shows pictures of which more than codes is read.
    redraws: whether it draws a part of a picture again.
  """

  size: str
  sampling: SamplingSettings
  answer: str
  is_drawing: bool
  places: int
  reads_features: bool
  redraws: bool


class Studio:
  """Grants wishes, with one generator a size, all with the same parameters.

  Attributes:
    sizes: aspect ratios that can be drawn, the run's first one first.
    learnt: what the model answers with by itself.
  """

  def __init__(self, generators: Mapping[str, Generator], learnt: Learnt, rows: int):
    """`rows`: images that are drawn at once, at most."""
    self._generators, self.learnt, self.rows = dict(generators), learnt, rows
    self.sizes = tuple(generators)

  @classmethod
  def open(cls, run: Run, settings: Settings, rows: int) -> "Studio":
    """Of a run, which samples as `settings` say. UserError where it cannot be served."""
    sizes = {ratio: settings.drawing(ratio) for ratio in settings.data.aspect_ratios}
    generators: dict[str, Generator] = {}
    for ratio, of_size in sizes.items():
      system = open_system(of_size, run.text_tokenizer.size)
      generators[ratio] = generator = open_generator(system, {} if generators else run.params, run.text_tokenizer)
      if not isinstance(generator, Generator):
        raise UserError(f"a run of config.system={settings.system!r} does not answer, and cannot be served")
      generator.params = next(iter(generators.values())).params
    vocabulary = generators[settings.data.aspect_ratios[0]].omni.vocabulary
    return cls(generators, learnt(settings, run.text_tokenizer, vocabulary), rows)

  @property
  def text_tokenizer(self) -> TextTokenizer:
    return self._generators[self.sizes[0]].text_tokenizer

  def settings(self, size: str) -> Settings:
    return self._generators[size].omni.settings

  def turns(self, parts: Sequence[Part], size: str) -> tuple[Turn, ...]:
    """Parts of a conversation as the model reads them in a size. UserError where they are none."""
    generator = self._generators[size]
    return tuple(as_turns(parts, generator.omni.settings, generator.omni.vocabulary))

  def redraw(self, picture: bytes, part: np.ndarray, size: str) -> Redraw:
    """A picture of which a part, (height, width) bool of its pixels, is drawn again in a size. UserError as of both."""
    settings = self.settings(size)
    return Redraw(read_picture(picture, settings), read_part(part, settings))

  def variations(self, picture: bytes, keep: float, size: str, seeds: Sequence[int]) -> list[Redraw]:
    """`omniimage.sampling.kept.variation` of a picture, by each seed. UserError as of it."""
    settings = self.settings(size)
    read, dice = read_picture(picture, settings), (streams.generator(Stream.VARIATIONS, seed) for seed in seeds)
    return [variation(read, settings.buckets[0], keep, rng) for rng in dice]

  def shape(self, wish: Wish) -> tuple[Shape, int]:
    """What it is computed with, and how many tokens are read. UserError where it cannot be granted."""
    generator = self._generators[wish.size]
    settings, vocabulary = generator.omni.settings, generator.omni.vocabulary
    image_first = form_of(wish.answer).image_first
    encoded = read_turns(list(wish.turns), settings, generator.text_tokenizer, vocabulary, image_first)
    length, is_drawing = len(encoded.tokens), wish.answer == "image"
    places = self._places(length + OPENING, settings) if is_drawing else bucket(length, PLACES)
    reads = settings.prior.input_images in READ and not encoded.image_is_target.all()
    redraws = wish.redraw is not None
    return Shape(wish.size, wish.sampling, wish.answer, is_drawing, places, reads, redraws), length

  def grant(self, wishes: Sequence[Wish], shape: Shape, rows: int) -> Iterator[Step]:
    """What becomes of wishes of one shape, step by step. Nothing is computed before a step is asked for.

    Args:
      rows: a batch is filled up to so many; one session is alone.
    """
    generator = self._generators[shape.size]
    changes = dataclasses.asdict(shape.sampling)
    if shape.is_drawing:
      conversations, seeds = [list(wish.turns) for wish in wishes], [wish.seed for wish in wishes]
      redraws = [wish.redraw for wish in wishes if wish.redraw is not None]
      steps = generator.draw_together(conversations, seeds, rows=rows, places=shape.places, redraws=redraws, **changes)
    else:
      (wish,) = wishes
      steps = ([event] for event in generator.session(list(wish.turns), wish.seed, wish.answer, **changes))
    codes = [np.empty(0, np.int32) for _ in wishes]
    for events in steps:
      step = [[event] for event in events]
      for i, event in enumerate(events):
        if wishes[i].previews and isinstance(event, Codes):
          codes[i] = np.concatenate([codes[i][: event.first], event.codes])
          step[i].append(self._preview(generator, codes[i], event))
      yield step

  def usual(self) -> Iterator[tuple[Wish, Shape, int]]:
    """Wishes whose programs most requests need, with the number of rows: those that are compiled at start."""
    size = self.sizes[0]
    settings, turns = self.settings(size), self.turns(["a"], size)
    rows = [2**i for i in range(self.rows.bit_length()) if 2**i <= self.rows]
    wish = Wish(turns, size, 0, "image", settings.sampling, previews=True)
    if self.learnt.answer != "text":
      shape, _ = self.shape(wish)
      lengths = dict.fromkeys(self._places(n, settings) for n in range(1, room_before_image(settings) + OPENING + 1))
      yield from ((wish, shape._replace(places=places), n) for places in lengths for n in rows)
    if self.learnt.answer != "image":
      wish = dataclasses.replace(wish, answer=self.learnt.answer)
      yield wish, self.shape(wish)[0], 1

  def _places(self, length: int, settings: Settings) -> int:
    """What a prompt of so many tokens is filled up to, before an image."""
    places = PLACES
    while places < length:
      places *= 2
    return min(places, room_before_image(settings) + OPENING)

  def _preview(self, generator: Generator, codes: np.ndarray, event: Codes) -> Preview:
    """The strip of the rows of codes that an event has brought."""
    rendering = generator.preview(codes)
    (h, w), (height, width) = event.grid, rendering.shape[:2]
    top, bottom = (number // w * (height // h) for number in (event.first, event.first + len(event.codes)))
    return Preview(rendering[top:bottom].copy(), top, (height, width))
