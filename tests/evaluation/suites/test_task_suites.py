"""The suites of the tasks over scenes: a perfect partner scores one, and what another does wrong is found and shown."""

import dataclasses
import itertools
import json

import numpy as np
import pytest

from omniimage.data.scenes.captions import caption, read
from omniimage.data.scenes.grader import grade
from omniimage.data.scenes.tasks import TASKS
from omniimage.data.scenes.world import BACKGROUND, Scene, render
from omniimage.data.sources.emoji import EmojiSettings
from omniimage.errors import UserError
from omniimage.evaluation.evaluate import evaluate, summary
from omniimage.evaluation.held_out import draws_from_words, held_out, open_split, pictured
from omniimage.evaluation.suites import SUITES, suites_of
from omniimage.evaluation.suites.binding import binding
from omniimage.evaluation.suites.caption import captions
from omniimage.evaluation.suites.conversation import converse
from omniimage.evaluation.suites.edits import edits
from omniimage.evaluation.suites.questions import answers, kind_of
from omniimage.evaluation.suites.sketch import sketches
from omniimage.systems.omni import OmniSystem
from omniimage.workdir import Run
from tests import small
from tests.evaluation.fakes import FakeGenerator, FakePartner, finished, settings, together

EVERY = tuple(TASKS)
OWN = ("caption", "questions", "edits", "sketch", "conversation")
PROMPTS = 24
SCENES = small.system(small.settings())


def partner(tasks=EVERY, spoiled=lambda answer: answer, records=6 * PROMPTS + 60) -> FakePartner:
  return FakePartner(settings(tasks), records, spoiled=spoiled)


def without_first(image: np.ndarray) -> np.ndarray:
  """A picture whose first object is missing; a text as it is."""
  scene = grade(image, 2).scene
  return render(Scene(2, scene.objects[1:]), 32)


def smeared(image: np.ndarray) -> np.ndarray:
  return np.full_like(image, 128)


def nothing(image: np.ndarray) -> np.ndarray:
  return np.broadcast_to(np.uint8(BACKGROUND), image.shape).copy()


@pytest.mark.parametrize(
  ("measure", "perfect"),
  [
    (captions, {"objects": 1.0, "captions": 1.0, "mistakes": {}}),
    (answers, {"right": 1.0}),
    (edits, {"exact": 1.0, "done": 1.0, "kept": 1.0, "rendering": {"exact": 1.0, "done": 1.0, "kept": 1.0}}),
    (sketches, {"objects": 1.0, "scenes": 1.0, "mistakes": {}}),
    (converse, {"pictures": dict.fromkeys("1234", 1.0), "objects": dict.fromkeys("1234", 1.0), "conversations": 1.0}),
  ],
)
def test_a_perfect_partner_scores_one_in_every_figure_and_nothing_is_shown_as_wrong(measure, perfect):
  result = measure(partner(), PROMPTS, 0)
  figures, pictures = result.figures(), result.pictures()
  assert figures["prompts"] == PROMPTS and {key: figures[key] for key in perfect} == perfect
  assert list(pictures.wrong) == [] and len(pictures.captions) == len(pictures.true) == PROMPTS
  assert all(len(column) == PROMPTS for column in pictures.columns.values())
  json.dumps(figures)


def test_a_caption_that_forgets_an_object_loses_that_object_alone():
  def forgetful(text):
    told, _ = read(text, 2)
    return caption(Scene(2, tuple(told[1:] or told)), np.random.default_rng(0))

  result = captions(partner(spoiled=forgetful), PROMPTS, 0)
  figures = result.figures()
  objects, several = sum(len(scene.objects) for scene in result.scenes), [len(s.objects) > 1 for s in result.scenes]
  assert figures["objects"] == pytest.approx(1 - sum(several) / objects)
  assert figures["captions"] == pytest.approx(1 - np.mean(several)) and figures["mistakes"] == {"missing": sum(several)}
  wrong = next(i for i, more in enumerate(several) if more)
  (note,) = result.pictures().columns["wrongly told"][wrong].notes
  assert note.endswith(": missing") and list(result.pictures().wrong) == np.flatnonzero(several).tolist()


@pytest.mark.parametrize("text", ["", "\ufffd\ufffd", "a a a a", "<b>no caption</b>"])
def test_garbage_scores_nothing_and_is_shown_as_text(text, tmp_path):
  figures = captions(partner(spoiled=lambda _: text), PROMPTS, 0).figures()
  assert figures["objects"] == figures["captions"] == 0
  assert answers(partner(spoiled=lambda _: text), PROMPTS, 0).figures()["right"] == 0
  if text.startswith("<"):
    assert figures["mistakes"]["other words"] == PROMPTS


def test_who_always_says_yes_is_right_where_the_answer_is_yes():
  result = answers(partner(spoiled=lambda _: "Yes."), PROMPTS, 0)
  yes = [expected == "yes" for expected in result.expected]
  assert list(result.right) == yes and result.figures()["right"] == pytest.approx(np.mean(yes))
  assert result.figures()["by_kind"].get("what is", 0) == 0
  assert sum(result.figures()["prompts_by_kind"].values()) == PROMPTS


def test_questions_are_told_apart_by_how_they_begin():
  questions = "is there a star?", "is the star larger than the ring?", "what color is the star?", "how many stars?"
  assert [kind_of(question) for question in questions] == ["is there", "is the", "what color", "how many"]


def test_edits_that_lose_an_object_more_or_do_nothing_are_told_apart():
  spoiled = edits(partner(spoiled=without_first), PROMPTS, 0).figures()
  assert spoiled["exact"] == 0 and spoiled["done"] > 0.3 and spoiled["kept"] > 0.1
  generator = partner(records=0)
  generator.draw_after = lambda prompts, seeds: together([finished(generator, turns[0].image) for turns in prompts])
  idle = edits(generator, PROMPTS, 0)
  assert idle.figures()["exact"] == idle.figures()["done"] == 0 and idle.figures()["kept"] == 1
  assert set(idle.figures()["by_kind"].values()) == {0.0}
  assert (idle.pictures().columns["before"] == idle.images).all()


def test_sketches_that_were_left_blank_miss_every_object():
  figures = sketches(partner(spoiled=nothing), PROMPTS, 0).figures()
  assert figures["objects"] == figures["scenes"] == 0 and set(figures["mistakes"]) == {"missing"}
  assert sketches(partner(spoiled=smeared), PROMPTS, 0).figures()["mistakes"].keys() == {"unclear"}


def test_a_conversation_goes_on_from_what_the_model_has_drawn_and_not_from_what_was_right():
  generator = partner(spoiled=smeared)
  figures = converse(generator, 3, 0).figures()
  assert all((turn == 128).all() for turns, _ in generator.said for turn in turns if not isinstance(turn, str))
  asked = [sum(isinstance(turn, str) for turn in turns) for turns, _ in generator.said]
  assert asked == [2] * 3 + [3] * 3 + [4] * 3, "the first of each is drawn in a batch"
  assert len({seed for _, seed in generator.said}) == 9
  assert all(roles == ["user", "assistant"] * (len(roles) // 2) + ["user"] for roles in generator.roles)
  assert set(figures["pictures"].values()) == {0.0} and figures["conversations"] == 0


def test_every_suite_reads_the_records_of_its_own_task_alone():
  for measure, own in ((captions, "It"), (answers, "ITt"), (edits, "ITi"), (sketches, "ITi")):
    generator = partner()
    measure(generator, 5, 0)
    shapes = {"".join("T" if isinstance(turn, str) else "I" for turn in turns) for turns, _ in generator.said}
    assert shapes == {own[:-1]}
  generator = FakeGenerator(settings(EVERY))
  result = binding(generator, 12, 0)  # parses every prompt as a caption
  assert result.figures()["objects"] == 1 and len(set(result.scenes)) == 12


# ---------------------------------------------------------------------------------------------------------- the report


def source_of(tasks):
  return open_split(FakeGenerator(settings(tasks)), "test")


def test_which_suites_fit_depends_on_the_tasks():
  everything = ("binding", *OWN, "reconstruction", "seams", "quality")
  assert suites_of("all", source_of(EVERY), SCENES) == everything == tuple(SUITES)
  assert suites_of("all", source_of(("text_to_image",)), SCENES) == ("binding", "reconstruction", "seams", "quality")
  assert suites_of("all", source_of(("caption", "edit")), SCENES) == ("caption", "edits", "reconstruction")
  with pytest.raises(UserError, match=r"^sketch grades answers that no task .*scenes; evaluate --suite=caption or "):
    suites_of("sketch", source_of(("caption",)), SCENES)


@pytest.mark.parametrize("measure", [captions, answers, edits, sketches, converse])
def test_a_run_without_the_task_is_refused_in_one_line(measure):
  s = settings()
  with pytest.raises(UserError, match=r"no task asks for: this run has learnt scenes$"):
    measure(FakeGenerator(s), 4, 0)
  s = dataclasses.replace(s, data=dataclasses.replace(s.data, source=EmojiSettings("emoji")))
  with pytest.raises(UserError, match=r"this run has learnt emoji$"):
    measure(FakeGenerator(s), 4, 0)


@pytest.fixture
def evaluated(monkeypatch, tmp_path):
  def of(spoiled, tasks=EVERY, suite="all"):
    monkeypatch.setattr(OmniSystem, "generator", lambda self, *_: FakePartner(self.settings, 120, spoiled=spoiled))
    run = Run(settings(tasks), {}, small.text_tokenizer(), step=3)
    figures = evaluate(run, tmp_path, suite, tmp_path, prompts=6, seed=0)
    return figures, (tmp_path / "report.html").read_text()

  return of


def test_all_suites_stand_in_one_report_and_a_later_one_still_shows_them(evaluated):
  figures, html = evaluated(lambda answer: answer)
  assert list(figures) == [*SUITES, "seconds"]
  assert all(f"<h2>{name.capitalize()}</h2>" in html for name in SUITES)
  said = summary(figures)
  assert (
    all(f"\n{name}" in f"\n{said}" for name in SUITES) and "100.0 %" in said and max(map(len, said.split("\n"))) < 200
  )
  assert html.count('<table class="gallery">') == 6, "one of text→image, whose suites share it, and one of each other"
  again, html = evaluated(lambda answer: answer, suite="reconstruction")
  assert "caption" not in again and "<h2>Caption</h2>" in html


def test_what_was_wrong_can_be_seen_in_the_report(evaluated):
  _, html = evaluated(lambda answer: "<i>nonsense</i>" if isinstance(answer, str) else smeared(answer))
  assert "also says: &lt;i&gt;nonsense" in html and "&lt;i&gt;nonsense&lt;/i&gt; — right: " in html
  assert "<i>nonsense" not in html and ": unclear" in html and 'alt="outlines: ' in html and 'alt="turn 4: ' in html


def test_sheets_and_seams_ask_in_words_alone_and_the_tokenizer_reads_any_picture():
  held = held_out(FakeGenerator(settings(EVERY)), 8, 0)
  assert draws_from_words(source_of(EVERY)) and all(read(text, 2)[0] for text in held.captions)
  assert not draws_from_words(source_of(("caption", "edit", "conversation", "sketch", "questions")))
  assert len(held_out(FakeGenerator(settings(("caption", "edit"))), 8, 0, pictured).images) == 8


def test_prompts_are_the_first_held_out_scenes_whatever_else_is_learnt():
  alone, mixed = (captions(partner(tasks), 8, 0) for tasks in (("caption",), EVERY))
  assert list(alone.scenes) == list(mixed.scenes)
  assert len(set(itertools.chain(alone.scenes))) == 8
