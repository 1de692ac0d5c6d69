"""Conversations about held-out scenes: does every picture show the scene as it is to be by then?

The model goes on from the pictures that it has drawn itself, so what is wrong once mostly stays wrong.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.scenes.grader import Graded, Score
from omniimage.data.scenes.world import Scene
from omniimage.data.sources.source import Source
from omniimage.evaluation.held_out import conversations, drawn, graded_by, ungraded
from omniimage.evaluation.markup import table
from omniimage.evaluation.replies import painted
from omniimage.evaluation.suites.binding import mark
from omniimage.evaluation.suites.suite import Pictures, Result, Suite, counted, percent
from omniimage.sampling.generate import Generator

NAME = "conversation"  # as the task's grader calls it

# Axes: n conversations, T turns of the model, H and W pixels.


@dataclasses.dataclass(frozen=True, eq=False)
class Conversations:
  """What was asked for in each of the n × T turns, and what was painted."""

  texts: Sequence[Sequence[str]]
  scenes: Sequence[Sequence[Scene]]
  last: np.ndarray  # (n, H, W, 3) uint8, as it should be in the end
  images: np.ndarray  # (n, T, H, W, 3) uint8
  seen: Sequence[Sequence[Graded]]
  scores: Sequence[Sequence[Score]]

  def figures(self) -> dict:
    """`objects` and `pictures` by turn, from 1: shares of the objects that are bound, and of the pictures that are
    exactly right; `conversations`: those with all pictures right."""
    by_turn = list(zip(*self.scores))
    objects = {str(turn): _mean(bound for one in own for bound in one.bound) for turn, own in enumerate(by_turn, 1)}
    pictures = {str(turn): _mean(one.exact for one in own) for turn, own in enumerate(by_turn, 1)}
    whole = _mean(all(one.exact for one in own) for own in self.scores)
    return {"objects": objects, "pictures": pictures, "conversations": whole, "prompts": len(self.scores)}

  def pictures(self) -> Pictures:
    columns = {
      f"turn {turn + 1}": [
        mark(images[turn], scenes[turn], seen[turn])
        for images, scenes, seen in zip(self.images, self.scenes, self.seen)
      ]
      for turn in range(self.images.shape[1])
    }
    wrong = [i for i, own in enumerate(self.scores) if not all(one.exact for one in own)]
    return Pictures(tuple(" / ".join(texts) for texts in self.texts), self.last, columns, wrong)


class ConversationSuite(Suite):
  needs = "turns"

  def misfit(self, source: Source, learnt: str) -> str:
    return "" if graded_by(source, NAME) else ungraded(learnt)

  def run(
    self, generator: Generator, number: int, seed: int, batch: int, earlier: Mapping[str, Result]
  ) -> Conversations:
    return converse(generator, number, seed, batch)

  def section(self, figures: Mapping) -> str:
    turns = list(figures["pictures"])
    header = ["", *(f"turn {turn}" for turn in turns)]
    rows = [
      [title, *(percent(figures[name][turn]) for turn in turns)]
      for title, name in (("pictures right", "pictures"), ("objects bound", "objects"))
    ]
    used = counted(figures["prompts"], figures, "conversations from held-out scenes")
    return (
      f"<p>{used}, each going on from the pictures that were painted in it; all of them are right in "
      f"{percent(figures['conversations'])}.</p>{table(header, rows)}"
    )

  def lines(self, figures: Mapping) -> list[str]:
    turns = figures["pictures"]
    return [
      f"{NAME:<26}" + "".join(f"{f'turn {turn}':>10}" for turn in turns),
      *(
        f"  {title:<24}" + "".join(f"{percent(figures[name][turn]):>10}" for turn in turns)
        for title, name in (("pictures right", "pictures"), ("objects bound", "objects"))
      ),
      f"  {counted(figures['prompts'], figures, 'conversations from held-out scenes')}",
    ]


def converse(generator: Generator, prompts: int, seed: int, batch: int = 64) -> Conversations:
  """Holds conversations from the first `prompts` different scenes of the test split on. UserError if the source has no
  such task."""
  task, found = conversations(generator, NAME, prompts, seed)
  grader = task.grader
  texts = [[turn.text for turn in turns if isinstance(turn, TextTurn)] for turns in found]
  scenes = [grader.expected(turns) for turns in found]
  said, images = [[] for _ in found], []
  for turn in range(task.images):
    for own, words in zip(said, texts):
      own.append(TextTurn(words[turn], False))
    first = [words[turn] for words in texts]
    # The first instructions are prompts in words alone, which are drawn in batches.
    shown = drawn(generator, first, seed, batch) if turn == 0 else painted(generator, said, seed + turn, batch)
    for own, image in zip(said, shown.images):
      own.append(ImageTurn(image, True))
    images.append(shown.images)
  images = np.stack(images, axis=1)
  seen = [grader.grade(own) for own in images]
  scores = [grader.score(own, graded) for own, graded in zip(scenes, seen)]
  return Conversations(texts, scenes, np.stack([turns[-1].image for turns in found]), images, seen, scores)


def _mean(values) -> float:
  return float(np.mean(list(values)))
