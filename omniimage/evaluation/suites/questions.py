"""Questions about held-out scenes: are the answers right?"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from omniimage.data.conversation import Turn
from omniimage.data.sources.source import Source
from omniimage.data.tasks import text_of
from omniimage.evaluation.held_out import conversations, graded_by, ungraded
from omniimage.evaluation.markup import Marked, table
from omniimage.evaluation.replies import written
from omniimage.evaluation.suites.suite import Pictures, Result, Suite, counted, percent
from omniimage.sampling.generate import Generator

NAME = "questions"  # as the task's grader calls it


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
  """Questions about n pictures (n, H, W, 3) uint8, the answers that were written, and the right ones."""

  images: np.ndarray
  questions: Sequence[str]
  answers: Sequence[str]
  expected: Sequence[str]
  right: Sequence[bool]

  def figures(self) -> dict:
    """`right`: share of the answers; `by_kind`: by the first words of the question, and how many began so."""
    kinds = [kind_of(question) for question in self.questions]
    number, right = Counter(kinds), Counter(kind for kind, one in zip(kinds, self.right) if one)
    by_kind = {kind: right[kind] / number[kind] for kind in sorted(number)}
    counts = {kind: number[kind] for kind in by_kind}
    share = float(np.mean(self.right))
    return {"right": share, "by_kind": by_kind, "prompts_by_kind": counts, "prompts": len(self.questions)}

  def pictures(self) -> Pictures:
    noted = [
      Marked(image, (), [] if right else [f"{answer or 'nothing said'} — right: {expected}"])
      for image, answer, expected, right in zip(self.images, self.answers, self.expected, self.right)
    ]
    wrong = [i for i, right in enumerate(self.right) if not right]
    return Pictures(tuple(self.questions), self.images, {"wrongly answered": noted}, wrong)


class QuestionsSuite(Suite):
  needs = "turns"

  def misfit(self, source: Source, learnt: str) -> str:
    return "" if graded_by(source, NAME) else ungraded(learnt)

  def run(self, generator: Generator, number: int, seed: int, batch: int, earlier: Mapping[str, Result]) -> Answers:
    return answers(generator, number, seed, batch)

  def section(self, figures: Mapping) -> str:
    rows = [
      [f"{kind} …", percent(share), str(figures["prompts_by_kind"][kind])] for kind, share in figures["by_kind"].items()
    ]
    rows.append(["all", percent(figures["right"]), str(figures["prompts"])])
    used = counted(figures["prompts"], figures, "questions about held-out scenes")
    return f"<p>{used}. Words that mean the same are right.</p>{table(['', 'answers right', 'questions'], rows)}"

  def lines(self, figures: Mapping) -> list[str]:
    by_kind = "  ".join(f"{kind}: {percent(share)}" for kind, share in figures["by_kind"].items())
    return [
      f"{NAME:<26}{'answers right':>14}",
      f"  {'written':<24}{percent(figures['right']):>14}",
      f"  {by_kind}",
      f"  {counted(figures['prompts'], figures, 'questions about held-out scenes')}",
    ]


def answers(generator: Generator, prompts: int, seed: int, batch: int = 64) -> Answers:
  """Asks one question about each of the first `prompts` different scenes of the test split. UserError if the source has
  no such task."""
  task, found = conversations(generator, NAME, prompts, seed)
  asked: list[tuple[Turn, ...]] = [task.prompt(turns) for turns in found]
  texts = written(generator, asked, seed, batch)
  expected = [task.grader.expected(turns) for turns in found]
  right = [task.grader.score(one, said) for one, said in zip(expected, task.grader.grade(texts))]
  questions = [text_of(prompt) for prompt in asked]
  return Answers(np.stack([turns[0].image for turns in found]), questions, texts, expected, right)


def kind_of(question: str) -> str:
  """The words that a question begins with."""
  first, second, *_ = question.split()
  return f"{first} {'the' if first == 'is' and second != 'there' else second}"
