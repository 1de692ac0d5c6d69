"""The page in a real browser: Chromium, driven by Playwright (pip install -e '.[browser]'); skipped without."""

import contextlib
import threading

import numpy as np
import pytest

from benchmarks.browser import ARGUMENTS, CHROMIUM, opened
from omniimage.sampling.drawing import Draws
from omniimage.serving.studio import Studio
from omniimage.systems import load_run
from tests import small
from tests.chat.fake_chat import text
from tests.launch.random_run import random_run
from tests.serving.served import FakeGenerator, fake_studio, left, serving, until

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


class Stepped(FakeGenerator):
  """Computes a step for each that is released, and shows tokens in another shade than paper and pixels."""

  def __init__(self, **changes):
    super().__init__(**changes)
    self.released = threading.Semaphore(0)

  def preview(self, codes):
    return np.full((16, 16, 3), -0.5, np.float32)

  def _computed(self, item):
    assert self.released.acquire(timeout=60), "nobody has released a step"
    return super()._computed(item)


@pytest.fixture(scope="module")
def chromium():
  with sync_api.sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture
def visit(chromium, tmp_path):
  """Opens the page of a server over a generator, or a studio; what it logs as an error or asks of elsewhere fails."""
  with contextlib.ExitStack() as stack:

    def open_page(generator: Draws | Studio, answer="image", exchanges=None, **context):
      studio = generator if isinstance(generator, Studio) else fake_studio(generator, answer, exchanges=exchanges)
      served = stack.enter_context(serving(studio, tmp_path / "kept"))
      page = opened(chromium, served.url, viewport={"width": 1000, "height": 900}, **context)
      stack.callback(page.context.close)
      return page, served

    yield open_page


def say(page, words: str):
  page.fill("#text", words)
  page.press("#text", "Enter")


def holds(page, condition: str, *given):
  """Waits for a condition of the page, which by its policy compiles no strings, as Playwright's own waiting would."""
  assert until(lambda: page.evaluate(condition, *given), 60), condition


def finished(page, answers: int = 1):
  """Waits for the end of the answer of that number."""
  holds(page, "(n) => document.querySelectorAll('#log li.assistant').length === n", answers)
  holds(page, "document.getElementById('stop').hidden")
  assert page.inner_text("#status") == "Finished."


def shown(page) -> str:
  return page.evaluate("document.querySelector('#log canvas').toDataURL()")


def loaded(page, number: int):
  """Waits for so many pictures of the conversation."""
  holds(
    page, "(n) => [...document.querySelectorAll('#log img')].filter((one) => one.naturalWidth).length === n", number
  )


def test_each_strip_is_seen_before_the_next_is_computed(visit):
  generator = Stepped()
  page, _ = visit(generator)
  say(page, "a red star")
  page.wait_for_selector("#stop:visible")
  before = None
  for step in range(4):  # two rows of tokens, two chunks
    generator.released.release()
    holds(page, "(n) => window.seen.length === n", step + 1)
    assert shown(page) != before and generator.steps == step + 1
    before = shown(page)
  generator.released.release()
  finished(page)
  assert page.inner_text("#log figcaption").startswith("seed ") and page.wrong == []


def test_three_turns_are_there_again_after_a_reload(visit):
  generator = FakeGenerator()
  page, _ = visit(generator)
  for number, words in enumerate(("a red star", "now larger", "now blue"), 1):
    say(page, words)
    finished(page, number)
  assert [len(turns) for (turns,) in generator.drawn_after] == [1, 3, 5]
  page.reload()
  holds(page, "document.querySelectorAll('#log li').length === 6")
  assert page.locator("#log li.user p").all_inner_texts() == ["a red star", "now larger", "now blue"]
  loaded(page, 3)
  say(page, "now green")
  finished(page, 4)
  assert len(generator.drawn_after[-1][0]) == 7 and page.wrong == []


@pytest.mark.parametrize("how", ["button", "key"])
def test_stop_stops_and_gives_back_what_was_said(visit, how):
  generator = Stepped()
  page, served = visit(generator)
  say(page, "a red star")
  generator.released.release()
  holds(page, "window.seen.length === 1")
  page.click("#stop") if how == "button" else page.keyboard.press("Escape")
  holds(page, "document.getElementById('status').textContent === 'Stopped.'")
  assert page.input_value("#text") == "a red star" and page.locator("#log li").count() == 0
  assert until(lambda: left(served.engine))
  generator.released.release()  # what it was at
  assert until(lambda: served.engine.works == 0) and generator.steps <= 2 and page.wrong == []


def test_a_sketch_drawn_with_the_mouse_is_shown_to_the_model(visit):
  generator = FakeGenerator()
  page, _ = visit(generator)
  page.click("#sketch")
  box = page.locator("#sheet").bounding_box()
  middle = box["y"] + box["height"] / 2
  page.mouse.move(box["x"] + 20, middle)
  page.mouse.down()
  page.mouse.move(box["x"] + box["width"] - 20, middle, steps=8)
  page.mouse.up()
  page.click("#use")
  page.wait_for_selector("#waiting li")
  say(page, "a red star")
  finished(page)
  sketch, words = generator.drawn_after[0][0]
  assert words.text == "a red star" and not sketch.is_target
  rows = sketch.image.mean(axis=(1, 2))
  assert rows[[7, 8]].max() < 235 and rows[[0, 15]].min() > 250, "a dark line across the middle of white paper"
  loaded(page, 1)
  assert page.locator("#log li.assistant canvas").count() == 1 and page.wrong == []


def test_the_sketch_can_be_drawn_with_the_keys_alone(visit):
  generator = FakeGenerator()
  page, _ = visit(generator)
  page.focus("#sketch")
  page.keyboard.press("Enter")
  holds(page, "document.activeElement.id === 'sheet'")
  page.keyboard.press("Space")
  for _ in range(20):
    page.keyboard.press("ArrowUp")
  page.keyboard.press("Space")
  page.focus("#use")
  page.keyboard.press("Enter")
  page.wait_for_selector("#waiting li")
  say(page, "a red star")
  finished(page)
  assert generator.drawn_after[0][0][0].image.min() < 240 and page.wrong == []


def test_of_several_pictures_another_is_gone_on_with(visit):
  generator = FakeGenerator()
  page, _ = visit(generator)
  page.click("#settings summary")
  page.fill("#n", "2")
  page.fill("#seed", "8")
  say(page, "a red star")
  finished(page)
  assert page.locator("#log canvas").count() == 2
  page.locator("text=Go on with this one").nth(1).click()
  page.wait_for_selector("#log figure:nth-child(2).chosen")
  page.fill("#n", "1")
  say(page, "now larger")
  finished(page, 2)
  drawn = generator.drawn_after[1][0][1].image
  assert (drawn == generator.calls[0][0][1] % 64).all() and page.wrong == []


def test_a_part_of_the_last_picture_is_drawn_again_in_its_place(visit):
  generator = FakeGenerator()
  page, _ = visit(generator)
  say(page, "a red star")
  finished(page)
  page.click(".acts:visible >> text=Draw a part again")
  box = page.locator("#marked").bounding_box()
  page.fill("#words", "a blue star")
  page.evaluate("document.getElementById('brush').value = 100")
  page.mouse.move(box["x"] + 5, box["y"] + box["height"] - 5)
  page.mouse.down()
  page.mouse.move(box["x"] + box["width"] - 5, box["y"] + box["height"] - 5, steps=8)
  page.mouse.up()
  page.click("#redraw")
  holds(page, "document.querySelector('#log li.user p').textContent === 'a blue star'")
  finished(page)
  (redraw,), (words,) = generator.calls[-1][-1]["redraws"], generator.drawn_after[-1][0]
  assert words.text == "a blue star" and redraw.again[15].all() and not redraw.again[:12].any()
  shade = 127.5 * (1 + generator.calls[0][0][0] % 64 / 100)
  assert abs(redraw.picture - shade).max() < 1, "the picture that it had drawn"
  assert page.locator("#log li").count() == 2 and page.wrong == []
  page.reload()
  loaded(page, 1)
  assert page.locator("#log li.user p").all_inner_texts() == ["a blue star"]


def test_another_like_the_last_picture_comes_in_its_place(visit):
  generator = FakeGenerator()
  page, _ = visit(generator)
  for number, words in enumerate(("a red star", "now larger"), 1):
    say(page, words)
    finished(page, number)
  assert page.locator("#log .acts:visible").count() == 1, "of the last answer alone"
  page.reload()
  loaded(page, 2)
  page.click(".acts:visible >> text=Another like it")
  holds(page, "document.querySelectorAll('#log canvas').length === 1")
  finished(page, 2)
  (redraw,) = generator.calls[-1][-1]["redraws"]
  assert redraw.paints_all and [len(turns) for turns in generator.drawn_after[-1]] == [3]
  assert page.locator("#log li").count() == 4 and page.wrong == []


def test_words_of_an_answer_come_as_text_and_not_as_markup(visit):
  page, _ = visit(FakeGenerator(says=text("a <b>red</b> ", "star")), "text")
  say(page, "<i>what is it?</i>")
  finished(page)
  assert page.inner_text("#log li.assistant p") == "a <b>red</b> star"
  assert page.inner_text("#log li.user p") == "<i>what is it?</i>" and page.locator("#log b, #log i").count() == 0


def test_a_telephone_shows_all_of_it_and_a_dark_one_is_dark(visit):
  page, _ = visit(FakeGenerator(), color_scheme="dark")
  page.set_viewport_size({"width": 360, "height": 640})
  say(page, "a large red star in the top left")
  finished(page)
  assert page.evaluate("document.scrollingElement.scrollWidth <= window.innerWidth")
  red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
  assert max(red, green, blue) < 64 and page.wrong == []


def test_a_real_models_picture_is_seen_to_change_with_every_chunk(visit, tmp_path):
  random_run(tmp_path / "run", **small.SHALLOW, **{"data.sequence_length": 128})
  run = load_run(tmp_path / "run")
  page, _ = visit(Studio.open(run, run.settings, 1))
  say(page, "a red star")
  finished(page)
  rows, chunks = run.settings.buckets[0].rows, 2
  assert page.evaluate("window.seen.length") == rows + chunks
  assert len(set(page.evaluate("window.seen"))) == rows + chunks and page.wrong == []
