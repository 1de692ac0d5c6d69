"""Questions: answers are true, by a reader of its own; chances are even; what means the same is right."""

import collections
import itertools
import re

import numpy as np
import pytest

from omniimage.data.scenes.captions import SIZE_WORDS, places
from omniimage.data.scenes.questions import draw_question
from omniimage.data.scenes.tasks.questions import QuestionsGrader
from omniimage.data.scenes.world import GRIDS, SHAPES, Scene, SceneObject, draw_scene, scene_of

SIZE_OF = {word: size for size, words in SIZE_WORDS.items() for word in words}
SINGULAR = {"crosses": "cross", **{f"{shape}s": shape for shape in SHAPES if shape != "cross"}}


def described(phrase: str, scene: Scene) -> list[SceneObject]:
  """The objects that fit a phrase, by a reader of its own."""
  cell_of = {place: cell for cell, phrases in places(scene.grid).items() for place in phrases}
  place = next((place for place in sorted(cell_of, key=len)[::-1] if phrase.endswith(f" {place}")), None)
  words = phrase.removesuffix(place or "").split()
  words = [SINGULAR.get(word, word) for word in words if word not in ("the", "a", "one", "shapes")]
  return [
    item
    for item in scene.objects
    if (place is None or item.cell == cell_of[place])
    and all(SIZE_OF.get(word, word) in (item.size, item.color, item.shape) for word in words)
  ]


def true_answer(question: str, scene: Scene) -> str:
  def one(phrase):
    (item,) = described(phrase, scene)
    return item

  def yes(holds):
    return "yes" if holds else "no"

  question = question.removesuffix("?")
  cell_of = {place: cell for cell, phrases in places(scene.grid).items() for place in phrases}
  if match := re.fullmatch(r"what is ((?:in|at) .+)", question):
    item = next((item for item in scene.objects if item.cell == cell_of[match[1]]), None)
    return f"{item.size} {item.color} {item.shape}" if item else "nothing"
  if match := re.fullmatch(r"how many (.+?)(?: are there)?", question):
    return str(len(described(match[1], scene)))
  if match := re.fullmatch(
    r"is there a (.+?) (above|below|left of|to the left of|right of|to the right of) (the .+)", question
  ):
    base, side = one(match[3]), match[2].removeprefix("to the ")
    apart = {
      "above": lambda item: base.row - item.row,
      "below": lambda item: item.row - base.row,
      "left of": lambda item: base.column - item.column,
      "right of": lambda item: item.column - base.column,
    }[side]
    return yes(any(apart(item) > 0 for item in described(match[1], scene)))
  if match := re.fullmatch(r"is there a (.+)", question):
    return yes(described(match[1], scene))
  if match := re.fullmatch(r"what (size|color|shape) is (.+)", question):
    return getattr(one(match[2]), match[1])
  if match := re.fullmatch(r"where is (.+)", question):
    row, column = one(match[1]).cell
    return f"row {row + 1}, column {column + 1}"
  if match := re.fullmatch(r"are there more (.+) than (.+)", question):
    return yes(len(described(match[1], scene)) > len(described(match[2], scene)))
  match = re.fullmatch(r"is (the .+) (larger|bigger|smaller) than (the .+)", question)
  sizes = one(match[1]).size, one(match[3]).size
  assert len(set(sizes)) == 2
  return yes(sizes == (("small", "large") if match[2] == "smaller" else ("large", "small")))


def phrases_of(question: str) -> list[str]:
  """What a question is about, by a reader of its own."""
  question = question.removesuffix("?")
  side = r"(?:above|below|(?:to the )?(?:left|right) of)"
  for pattern in (
    rf"is there a (.+?) {side} (the .+)",
    r"is (the .+) (?:larger|bigger|smaller) than (the .+)",
    r"are there more (.+) than (.+)",
    r"how many (.+) are there",
    r"(?:how many|is there a|what (?:size|color|shape) is|where is|what is) (.+)",
  ):
    if match := re.fullmatch(pattern, question):
      return [f"one {phrase}" if phrase[:3] in ("in ", "at ") else phrase for phrase in match.groups()]
  raise AssertionError(question)


def asked(n: int, grid: int = 3, least: int = 1, most: int = 9):
  for index in range(n):
    scene = scene_of(index, "train", grid=grid, min_objects=least, max_objects=most)
    drawn = draw_question(scene, np.random.default_rng(index))
    yield scene, drawn.question, drawn.answer


@pytest.mark.parametrize("grid", GRIDS)
def test_every_answer_is_true(grid):
  grader, rng = QuestionsGrader(grid), np.random.default_rng(grid)
  for _ in range(500):
    scene = draw_scene(rng, grid, int(rng.integers(1, grid**2 + 1)))
    drawn = draw_question(scene, rng)
    assert drawn.question.endswith("?")
    for answer in (drawn.answer, drawn.reasoned(scene)):
      assert grader.grade([answer]) == [true_answer(drawn.question, scene)], (drawn.question, answer)


def named_cells(scene: Scene) -> dict[str, tuple[int, int]]:
  return {phrases[0].removeprefix("in ").removeprefix("the "): cell for cell, phrases in places(scene.grid).items()}


def looked_up(told: str, phrase: str, scene: Scene) -> list[SceneObject]:
  """The objects that a passage finds for a phrase, after each of its claims was seen to be true."""
  cell_of, items, found = named_cells(scene), {item.cell: item for item in scene.objects}, []
  name = "|".join(sorted(cell_of, key=len)[::-1])
  if match := re.fullmatch(rf"({name}) (yes|no)", told):
    assert (match[2] == "yes") == (cell_of[match[1]] in items)
    return [items[cell_of[match[1]]]] if match[2] == "yes" else []
  clauses = [re.fullmatch(rf"({name}) (.+) (yes|no)", clause) for clause in told.split("; ")]
  assert [cell_of[clause[1]] for clause in clauses] == sorted(items), "each object, row by row"
  words = [SIZE_OF.get(word, SINGULAR.get(word, word)) for word in phrase.split()]
  words = [word for word in words if word not in ("the", "a", "one", "shapes")]
  for clause in clauses:
    item, checks = items[cell_of[clause[1]]], re.findall(r"(\w+)\? (\w+)", clause[2])
    assert " ".join(f"{wanted}? {own}" for wanted, own in checks) == clause[2]
    assert all(own in (item.size, item.color, item.shape) for _, own in checks)
    same = [wanted == own for wanted, own in checks]
    assert all(same[:-1]) and same[-1] == (clause[3] == "yes"), "up to the first word that it is not"
    assert [wanted for wanted, _ in checks] == words[: len(checks)] and (not all(same) or len(checks) == len(words))
    found += [item] * all(same)
  return found


@pytest.mark.parametrize("grid", GRIDS)
def test_an_answer_finds_what_each_phrase_of_its_question_means(grid):
  rng, kinds = np.random.default_rng(grid), collections.Counter()
  for _ in range(1500):
    scene = draw_scene(rng, grid, int(rng.integers(1, grid**2 + 1)))
    drawn = draw_question(scene, rng)
    phrases, parts = phrases_of(drawn.question), drawn.reasoned(scene).split(": ")
    told, decides, answer = parts[: len(phrases)], parts[len(phrases) : -1], parts[-1]
    assert answer == drawn.answer
    found = [looked_up(one, phrase, scene) for one, phrase in zip(told, phrases, strict=True)]
    assert [sorted(own, key=lambda item: item.cell) for own in found] == [
      sorted(described(phrase, scene), key=lambda item: item.cell) for phrase in phrases
    ], (drawn.question, told)
    kinds[len(phrases), bool(decides)] += 1
    if not decides:
      continue
    cell_of, (decided,) = named_cells(scene), decides
    if drawn.question.startswith("what"):
      assert [cell_of[decided]] == [item.cell for item in found[0]]
    elif side := re.search("above|below|left of|right of", drawn.question):
      line = ("row", "column")["of" in side[0]]
      words = ("top", "center", "bottom") if line == "row" else ("left", "center", "right")
      named = [f"{line} {i + 1}" for i in range(grid)] if grid > 3 else [words[0], *words[1 : grid - 1], words[2]]
      one, base = (named.index(name) for name in decided.split(" and "))
      holds = one < base if side[0] in ("above", "left of") else one > base
      assert holds == (answer == "yes") and base == getattr(found[1][0], line)
      assert one in {getattr(item, line) for item in found[0]}
    else:
      names = {cell: name for name, cell in cell_of.items()}
      (one,), (other,) = found
      assert decided == f"{names[one.cell]} {one.size} and {names[other.cell]} {other.size}"
  assert set(kinds) == set(itertools.product((1, 2), (False, True))), kinds


@pytest.mark.parametrize(("grid", "least", "most"), [(2, 1, 4), (3, 1, 9), (5, 10, 25)])
def test_yes_is_as_often_right_as_no_for_every_kind_of_question(grid, least, most):
  answers = collections.defaultdict(list)
  for _, question, answer in asked(6000, grid, least, most):
    if answer in ("yes", "no"):
      side = next((word for word in ("above", "below", "left of", "right of") if word in question), "")
      answers["side" if side else " ".join(question.split()[:2]) if "there" in question else "larger"].append(
        answer == "yes"
      )
  assert set(answers) == {"side", "is there", "are there", "larger"}
  for kind, own in answers.items():
    assert abs(np.mean(own) - 0.5) < 4 * 0.5 / len(own) ** 0.5, (kind, np.mean(own), len(own))


def test_no_answer_is_a_safe_guess():
  grader, by_kind = QuestionsGrader(3), collections.defaultdict(collections.Counter)
  for _, question, answer in asked(5000, least=2, most=6):
    by_kind[" ".join(question.split()[:2])][grader.grade([answer])[0]] += 1
  for kind, answers in by_kind.items():
    (_, most), total = answers.most_common(1)[0], answers.total()
    assert most / total < (0.6 if len(answers) == 2 else 0.55), (kind, answers.most_common(3))
  numbers = by_kind["how many"]
  assert set(numbers) >= {"0", "1", "2", "3"} and min(numbers[digit] for digit in "012") > 0.15 * numbers.total()
  assert 0.35 < by_kind["what is"]["nothing"] / by_kind["what is"].total() < 0.6


def test_a_scene_of_one_object_and_a_full_one_can_be_asked_about():
  rng = np.random.default_rng(0)
  for objects in (1, 4):
    kinds = {" ".join(draw_question(draw_scene(rng, 2, objects), rng).question.split()[:2]) for _ in range(400)}
    assert kinds >= {"what is", "how many", "is there", "where is", "what color", "are there"}


@pytest.mark.parametrize(
  ("grid", "answer", "same"),
  [
    (3, "a large red star", ["large red star", "one BIG red star", " a  big red star. "]),
    (3, "in the top center", ["at the upper middle", "the top middle", "Upper center."]),
    (4, "in row 2, column 3", ["at row 2, column 3", "in column 3 of row 2", "row 2, column 3"]),
    (3, "2", ["two", "2.", "top left red? red yes; center red? red yes: 2"]),
    (3, "yes", ["top left star? ring no: yes", "top left yes: center no: Yeah."]),
    (4, "yes", ["row 2, column 3 red? red yes: yes"]),
    (3, "0", ["none", "zero"]),
    (3, "1", ["one"]),
    (3, "small", ["tiny", "little"]),
    (3, "yes", ["Yes", "yes."]),
  ],
)
def test_what_means_the_same_is_right(grid, answer, same):
  grader = QuestionsGrader(grid)
  (expected,) = grader.grade([answer])
  assert all(grader.score(expected, one) for one in grader.grade(same))


@pytest.mark.parametrize(
  ("answer", "other"),
  [
    ("a large red star", "a red star"),
    ("a large red star", "a large red star in the top left"),
    ("in the top left", "in the top"),
    ("yes", "no"),
    ("yes", "yes yes"),
    ("yes", "yes: no"),
    ("2", "12"),
    ("nothing", ""),
    ("red", "red red"),
    ("red", "\ufffd"),
  ],
)
def test_what_means_something_else_is_wrong(answer, other):
  grader = QuestionsGrader(3)
  expected, graded = grader.grade([answer, other])
  assert not grader.score(expected, graded)
