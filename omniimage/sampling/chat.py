"""A conversation that goes on: what was said is kept, and so is, on the device, what the model has read of it."""

import weakref
from collections.abc import Generator as Events
from collections.abc import Sequence

import numpy as np

from omniimage.data import conversation
from omniimage.data.conversation import ImageTurn, TextTurn, Turn
from omniimage.sampling.events import Event, Image, Text, TextEnd
from omniimage.sampling.generate import Generator
from omniimage.sampling.prompts import Part, as_turns, room_for_text
from omniimage.sampling.session import Session


class Chat:
  """A conversation with a model. Each answer reads only what is new, and is that of a session of all that was said.

  For one thread at a time; its sessions may be cancelled from any.

  Attributes:
    turns: what was said, as the model reads it: the images that it has drawn are the codes (h, w) int32 which it drew.
    seed: answer number n is of seed + n, where no other is given.
  """

  def __init__(self, generator: Generator, turns: Sequence[Part] = (), seed: int = 0):
    """`turns`: what was said before, as `Generator.session` takes it. UserError where the model cannot read it."""
    self._generator, self.seed = generator, seed
    self._session = lambda: (
      None
    )  # the last one while anybody has it; it has the chat, and so neither outlives the other
    self.turns: list[Turn] = as_turns(turns, self._settings, generator.omni.vocabulary) if len(turns) else []
    self._context = generator.context()

  @property
  def _settings(self):
    return self._generator.omni.settings

  @property
  def answers(self) -> int:
    """How many answers there are."""
    return sum(role == conversation.ASSISTANT for role in _speakers(self.turns))

  @property
  def room(self) -> int:
    """Tokens that may still be said, the model's own included."""
    generator = self._generator
    v, size = generator.omni.vocabulary, self._settings.buckets[0]
    said = len(conversation.encode(self.turns, generator.text_tokenizer, v, size).tokens) if self.turns else 0
    return max(0, room_for_text(self._settings) - said)

  def say(self, *parts: Part, seed: int | None = None, answer: str = "free", **changes) -> Session:
    """The user's turn, and the answer as it comes. One that is still under way is cancelled; so is one whose session is
    dropped.

    What was said joins `turns` when the answer has ended or is cancelled: texts as far as they came, and images that
    were finished. Where the model has said nothing when it is cancelled, the user has said nothing either.

    Args:
      parts: texts and pictures, as of `Generator.session`.
      answer, changes: as there.

    Raises ConversationFull where the row has no room for an answer, UserError as `Generator.session`.
    """
    self._stop()
    if self._context.params is not self._generator.params:
      self._context = self._generator.context()
    asked = [*self.turns, *as_turns(parts, self._settings, self._generator.omni.vocabulary)]
    seed = (self.seed + self.answers) % 2**64 if seed is None else seed
    events = self._generator.session(asked, seed, answer, self._context, **changes)
    session = Session(self._heard(events, asked))
    self._session = weakref.ref(session)
    return session

  def undo(self) -> bool:
    """Takes back the last turn of the user and what follows it; False where there is none."""
    self._stop()
    speakers = [turn.role for turn in self.turns]
    if conversation.USER not in speakers:
      return False
    last = len(speakers) - 1 - speakers[::-1].index(conversation.USER)
    while last and speakers[last - 1] == conversation.USER:
      last -= 1
    self.turns = self.turns[:last]
    return True

  def _stop(self):
    """Cancels the answer under way, if there is one."""
    session = self._session()
    if session is not None:
      session.cancel()

  def _heard(self, events: Session, asked: list[Turn]) -> Events[Event, None, None]:
    """The events, of which `turns` hear."""
    said, unfinished, ended = [], "", False
    try:
      for event in events:
        if isinstance(event, Text):
          unfinished += event.text
        elif isinstance(event, TextEnd):
          said, unfinished = said + ([TextTurn(event.text, True)] if event.text else []), ""
        elif isinstance(event, Image):
          said.append(ImageTurn(event.codes.astype(np.int32), True))
        yield event
      ended = True
    finally:
      events.cancel()
      if unfinished:
        said.append(TextTurn(unfinished, True))
      if said or ended:
        self.turns = [*asked, *(said or [TextTurn("", True)])]


def _speakers(turns: Sequence[Turn]) -> list[str]:
  """Who says each turn, its parts together."""
  roles = [turn.role for turn in turns]
  return [role for role, before in zip(roles, [None, *roles]) if role != before]
