"""The page in a real browser with a trained model of scenes, and its pictures for the documents.

  pip install -e '.[browser]'
  python -m benchmarks.page --workdir=runs/conversation --out=docs/images --report=page.md

A Chromium talks with `launch.serve` as a person would: held-out conversations of three turns, in which the canvas has
to change with every strip before the last one comes; a reload; a sketch by mouse; a drawing that is stopped; a part
that is drawn again. Every picture is graded as it stands on the page.
"""

import base64
import contextlib
import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.browser import ARGUMENTS, CHROMIUM, opened
from benchmarks.served import served, test_split
from omniimage import streams
from omniimage.data.conversation import TextTurn, Turn
from omniimage.data.scenes.grader import Score
from omniimage.data.scenes.outlines import STROKE, WIDTH
from omniimage.data.scenes.tasks.conversation import ConversationGrader
from omniimage.data.scenes.world import SHAPES, SIZES, Scene, SceneObject
from omniimage.data.sources.scenes import ScenesSource
from omniimage.settings import Settings
from omniimage.streams import Stream

WORKDIR = flags.DEFINE_string("workdir", None, "a run of scenes that has learnt conversations", required=True)
CONVERSATIONS = flags.DEFINE_integer("conversations", 4, "of three turns", lower_bound=1)
OUT = flags.DEFINE_string("out", None, "folder for page*.png")
REPORT = flags.DEFINE_string("report", None, "write what was seen here, as Markdown")

TURNS = 3
DESK, TELEPHONE = {"width": 760, "height": 1200}, {"width": 390, "height": 760}
SHOWN = """
() => [...document.querySelectorAll("#log li.assistant img, #log li.assistant canvas")].map((one) => {
  const sheet = document.createElement("canvas");
  sheet.width = one.naturalWidth || one.width;
  sheet.height = one.naturalHeight || one.height;
  sheet.getContext("2d").drawImage(one, 0, 0);
  return sheet.toDataURL();
})
"""


def main(_):
  settings, asked = held_out(WORKDIR.value)
  grader = ConversationGrader(settings.data.source.grid)
  chunk = settings.sampling.chunk_rows, settings.sampling.chunk_columns
  strips = settings.buckets[0].rows + math.prod(count // (size or count) for count, size in zip(settings.canvas, chunk))
  lines = []
  with served(WORKDIR.value) as server, browser() as chromium:
    pages = Visits(chromium, f"http://127.0.0.1:{server.port}")
    for number in range(CONVERSATIONS.value):
      turns = next(asked)
      words = [turn.text for turn in turns if isinstance(turn, TextTurn)][:TURNS]
      with pages.visit() as page:
        changes = [talk(page, said, seed=number) for said in words]
        page.reload()
        shown = pictures(page, TURNS)
        if number == 0:
          picture_of(page, "page.png")
      scores = grader.score(grader.expected(turns)[:TURNS], grader.grade(shown))
      lines.append(f"conversation {number + 1}: {told(scores)}; canvas changed {changes} times of {strips}")
    with pages.visit() as page:
      lines.append(f"a sketch by mouse: {told(sketched(page, grader))}")
    with pages.visit() as page:
      lines.append(f"a part drawn again: {told(drawn_again(page, grader))}")
    with pages.visit() as page:
      lines.append(f"stopped: {stopped(page)}")
    with pages.visit(viewport=TELEPHONE, color_scheme="dark") as page:
      talk(page, "draw a large red star in the top left and a small blue ring in the center", seed=0)
      picture_of(page, "page_telephone.png")
    lines += [f"what the browser complains of: {len(pages.wrong)}", *pages.wrong]
  text = "\n".join(f"- {line}" for line in lines)
  print(text)
  if REPORT.value:
    Path(REPORT.value).write_text(f"{text}\n")


def held_out(workdir: str) -> tuple[Settings, Iterator[list[Turn]]]:
  """Of a run: its settings, and the conversations of its test split, one after the other."""
  settings, source = test_split(workdir)
  if not isinstance(source, ScenesSource) or not any(own.grader.suite == "conversation" for own in source.tasks):
    raise SystemExit(f"{workdir} is no run of scenes that has learnt conversations")
  own = (number for number in range(len(source)) if source.task(number).grader.suite == "conversation")
  return settings, (source.record(number, streams.generator(Stream.CAPTIONS, 0, number)) for number in own)


# ---------------------------------------------------------------------------------------------------------- the browser


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
  if CHROMIUM is None:
    raise SystemExit("there is no chromium, chromium-browser or google-chrome here")
  with sync_playwright() as playwright:
    found = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    try:
      yield found
    finally:
      found.close()


class Visits:
  """To the page, each of a browser that has never been there.

  Attributes:
    wrong: what was logged as an error or asked of elsewhere.
  """

  def __init__(self, chromium: Browser, url: str):
    self._chromium, self._url, self.wrong = chromium, url, []

  @contextlib.contextmanager
  def visit(self, viewport=DESK, **context) -> Iterator[Page]:
    page = opened(self._chromium, self._url, viewport=viewport, **context)
    try:
      page.click("#settings summary")
      yield page
    finally:
      self.wrong += page.wrong
      page.context.close()


def talk(page: Page, words: str, seed: int) -> int:
  """Says something and waits for the picture. How often its canvas came to show something else."""
  before = page.evaluate("window.seen.length")
  say(page, words, seed)
  drawn(page, before)
  seen = page.evaluate("window.seen")[before:]
  return sum(one != other for one, other in zip(seen, [None, *seen]))


def say(page: Page, words: str, seed: int):
  page.fill("#seed", str(seed))
  page.fill("#text", words)
  page.press("#text", "Enter")


def drawn(page: Page, before: int):
  """Waits until more strips than before were drawn, and nothing more is. The page's policy compiles no strings, as
  Playwright's own waiting would."""
  while page.evaluate("window.seen.length") <= before:
    page.wait_for_timeout(5)
  page.wait_for_selector("#stop", state="hidden")


def pictures(page: Page, number: int) -> np.ndarray:
  """Those of the assistant, (number, S, S, 3) uint8, when all are there."""
  page.locator("#log li.assistant img, #log li.assistant canvas").nth(number - 1).wait_for()
  page.wait_for_load_state("networkidle")
  urls = page.evaluate(SHOWN)
  assert len(urls) == number, f"{len(urls)} pictures instead of {number}"
  read = (Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls)
  return np.stack([np.asarray(image.convert("RGB")) for image in read])


def picture_of(page: Page, name: str):
  """Into the documents, if they are to have some; settings closed, the last answer in sight."""
  if OUT.value:
    page.evaluate("document.getElementById('settings').open = false")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    Path(OUT.value).mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(Path(OUT.value) / name))
    page.evaluate("document.getElementById('settings').open = true")


# ------------------------------------------------------------------------------------------------------- what is tried


def sketched(page: Page, grader: ConversationGrader) -> list[Score]:
  """A large square in the center, by mouse, as the outlines of the data have it."""
  scene = Scene(grader.grid, (SceneObject("square", "green", "large", grader.grid // 2, grader.grid // 2),))
  page.click("#sketch")
  page.wait_for_selector("#sheet", state="visible")
  page.evaluate("(color) => { document.getElementById('color').value = color; }", f"#{bytes(STROKE).hex()}")
  box = page.locator("#sheet").bounding_box()
  cell = box["width"] / grader.grid
  stroke = WIDTH * cell * page.evaluate("document.getElementById('sheet').width") / box["width"]
  page.evaluate("(width) => { document.getElementById('width').value = width; }", round(stroke))
  reach = np.linspace(0, 1, 201)
  side = SIZES["large"] * cell * (reach[SHAPES["square"](reach, 0 * reach)].max() - WIDTH / 2 / SIZES["large"])
  corners = [(-side, -side), (side, -side), (side, side), (-side, side), (-side, -side)]
  middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
  page.mouse.move(middle[0] - side, middle[1] - side)
  page.mouse.down()
  for x, y in corners:
    page.mouse.move(middle[0] + x, middle[1] + y, steps=8)
  page.mouse.up()
  picture_of(page, "page_sketch.png")
  page.click("#use")
  page.wait_for_selector("#waiting li")
  talk(page, "paint the square green", seed=0)
  return list(grader.score([scene], grader.grade(pictures(page, 1))))


def drawn_again(page: Page, grader: ConversationGrader) -> list[Score]:
  """The top row of a picture under the brush, with another color in its words."""
  words = "draw a large {} star in the top left and a large blue ring in the bottom right"
  talk(page, words.format("red"), seed=0)
  page.click("#log .acts:visible >> text=Draw a part again")
  page.wait_for_selector("#marked", state="visible")
  box = page.locator("#marked").bounding_box()
  page.fill("#words", words.format("yellow"))
  page.evaluate("document.getElementById('brush').value = 100")
  for row in (0.08, 0.25):
    page.mouse.move(box["x"] + 4, box["y"] + row * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + row * box["height"], steps=8)
    page.mouse.up()
  picture_of(page, "page_brush.png")
  before = page.evaluate("window.seen.length")
  page.click("#redraw")
  drawn(page, before)
  last = grader.grid - 1
  objects = SceneObject("star", "yellow", "large", 0, 0), SceneObject("ring", "blue", "large", last, last)
  return list(grader.score([Scene(grader.grid, objects)], grader.grade(pictures(page, 1))))


def stopped(page: Page) -> str:
  """After the first strip: is the drawing over, and can another be drawn?"""
  page.fill("#n", "8")  # one would be finished before it can be stopped
  say(page, "draw a large red star in the top left", 0)
  while not page.evaluate("window.seen.length"):
    page.wait_for_timeout(5)
  page.keyboard.press("Escape")
  page.wait_for_selector("#stop", state="hidden")
  status, strips = page.inner_text("#status"), page.evaluate("window.seen.length")
  page.fill("#n", "1")
  talk(page, "draw a large red star in the top left", seed=0)
  return f"{status!r} after {strips} strips; then {page.inner_text('#status')!r}"


def told(scores: list[Score]) -> str:
  return ", ".join("as asked" if one.exact else f"{sum(one.bound)} of {len(one.bound)} objects" for one in scores)


if __name__ == "__main__":
  app.run(main)
