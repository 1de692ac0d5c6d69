"""What a run has learnt to answer with, by what its data have the assistant say and show."""

import contextlib
import itertools
from dataclasses import dataclass

import numpy as np

from omniimage.data.conversation import ImageTurn, TextTurn, Turn
from omniimage.data.sources import open_source
from omniimage.data.text import TextTokenizer
from omniimage.errors import UserError
from omniimage.settings import Settings
from omniimage.vocabulary import USER, Vocabulary

RECORDS = 64  # that are looked at; sources of a mixture take turns


@dataclass(frozen=True)
class Learnt:
  """What an answer is, of `omniimage.sampling.session.ANSWERS`, and how many exchanges a conversation had at most; None
  where that is not known."""

  answer: str
  exchanges: int | None = None

  def __str__(self) -> str:
    what = {"image": "a picture, this model has learnt no text", "text": "text, this model has learnt no pictures"}
    told = f"Each answer is {what.get(self.answer, 'text and pictures, as the model goes on')}."
    alone = " It has learnt single exchanges, so that each request begins another conversation."
    return told + alone * (self.exchanges == 1)


def learnt(settings: Settings, text_tokenizer: TextTokenizer, vocabulary: Vocabulary) -> Learnt:
  """By the first records of its training data and the weights of its stages; where the data are gone, anything."""
  stages = [settings.stages[name] for name in settings.schedule]
  taught = {kind for kind, term in KINDS.items() if any(stage.weight(term) > 0 for stage in stages)}
  conversations = _conversations(settings, text_tokenizer, vocabulary)
  if conversations:
    taught &= {type(turn) for turns in conversations for turn in turns if turn.is_target}
  answer = {frozenset({ImageTurn}): "image", frozenset({TextTurn}): "text"}.get(frozenset(taught), "free")
  return Learnt(answer, max(map(exchanges, conversations)) if conversations else None)


def exchanges(turns: list[Turn]) -> int:
  """How often the user begins to speak."""
  roles = [turn.role for turn in turns]
  return sum(role == USER != before for before, role in zip([None, *roles], roles))


KINDS = {TextTurn: "text", ImageTurn: "image"}  # a kind of turn → the term of the loss that teaches it


def _conversations(settings: Settings, text_tokenizer: TextTokenizer, vocabulary: Vocabulary) -> list[list[Turn]]:
  found = []
  with contextlib.suppress(UserError, OSError):
    source = open_source(settings.data, "train", settings.buckets, text_tokenizer, vocabulary)
    for index in itertools.islice(source.distinct(), RECORDS):
      with contextlib.suppress(ValueError, OSError):  # one that is bad is left out of training, too
        found.append(source.record(index, np.random.default_rng(index)))
  return found
