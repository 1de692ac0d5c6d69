"""A chat that answers by a script of events, without a model: as quick as what is tested around it."""

import numpy as np

from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.sampling.events import Chunk, Codes, Image, Text, TextEnd
from omniimage.sampling.prompts import ConversationFull, as_turns
from omniimage.sampling.session import Session
from tests import small


def text(*pieces: str, reason: str = "eos") -> list:
  return [*map(Text, pieces), TextEnd("".join(pieces), reason)]


def image(code: int) -> list:
  """The events of an image of one code and one shade."""
  codes, pixels = np.full((2, 2), code, np.int32), np.full((16, 16, 3), code / 100, np.float32)
  return [
    *(Codes(first, codes[first // 2], (2, 2)) for first in (0, 2)),
    *(Chunk(pixels[top : top + 8], (top, 0), (16, 16)) for top in (0, 8)),
    Image(codes, pixels, pixels),
  ]


class FakeGenerator:
  """The model that `small.settings` describes, of which nothing is ever made."""

  def __init__(self, *answers: list):
    self.omni, self.answers, self.asked = small.omni(small.settings()), list(answers), []


class FakeChat:
  """Takes the generator's answers one after the other, and keeps turns as `omniimage.sampling.chat.Chat` does."""

  def __init__(self, generator: FakeGenerator, turns=(), seed: int = 0):
    self._generator, self.seed, self.turns = generator, seed, list(turns)
    self.full = False

  @property
  def answers(self) -> int:
    return sum(turn.is_target for turn in self.turns)

  def say(self, *parts, answer, **changes) -> Session:
    omni = self._generator.omni
    asked = [*self.turns, *as_turns(parts, omni.settings, omni.vocabulary)]
    if self.full:
      raise ConversationFull("the conversation has 90 tokens")
    self._generator.asked.append((asked, answer, changes))
    return Session(self._heard(self._generator.answers.pop(0), asked))

  def undo(self) -> bool:
    asked = [i for i, turn in enumerate(self.turns) if not turn.is_target]
    last = [i for i in asked if not i or self.turns[i - 1].is_target]
    self.turns = self.turns[: last[-1]] if last else self.turns
    return bool(last)

  def _heard(self, events, asked):
    said, unfinished, ended = [], "", False
    try:
      for event in events:
        if callable(event):
          event()
          continue
        if isinstance(event, Text):
          unfinished += event.text
        elif isinstance(event, TextEnd):
          said, unfinished = [*said, TextTurn(event.text, True)], ""
        elif isinstance(event, Image):
          said.append(ImageTurn(event.codes, True))
        yield event
      ended = True
    finally:
      said += [TextTurn(unfinished, True)] if unfinished else []
      if said or ended:
        self.turns = [*asked, *said]
