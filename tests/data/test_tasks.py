"""What a text→image conversation gives, asks for, and is without its text."""

import numpy as np

from omniimage.data import conversation
from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.scenes.tasks.text_to_image import TextToImage as ScenesTextToImage
from omniimage.data.scenes.world import Scene, SceneObject, World, render, scene_of
from omniimage.data.tasks import TextToImage, text_of
from omniimage.size import Size
from omniimage.vocabulary import Vocabulary


class Bytes:
  """A text tokenizer that needs no file."""

  def encode(self, text: str) -> list[int]:
    return list(text.encode())


TASK = TextToImage()
CAPTION, ANSWER = TextTurn("a cat", False), TextTurn("done", True)
SKETCH, IMAGE = (ImageTurn(np.full((4, 4, 3), value, np.uint8), value == 1) for value in (2, 1))


SILENT = TextTurn("", False)


def test_dropping_what_is_asked_leaves_the_turns_and_the_image():
  assert TASK.without_condition([CAPTION, IMAGE]) == (SILENT, IMAGE)
  assert TASK.without_condition([SKETCH, CAPTION, IMAGE, ANSWER]) == (SKETCH, SILENT, IMAGE, ANSWER)
  vocabulary = Vocabulary(text_size=256, image_codes=10)
  tokens = conversation.encode(TASK.without_condition([CAPTION, IMAGE]), Bytes(), vocabulary, Size(2, 2, 4)).tokens
  assert tokens[:3].tolist() == [vocabulary.user, vocabulary.assistant, vocabulary.image]


def test_of_several_turns_the_last_request_loses_its_words_and_so_does_the_answer_up_to_the_image():
  before, announced = [CAPTION, ANSWER, IMAGE], TextTurn("here it is", True)
  turns = [*before, SKETCH, CAPTION, announced, IMAGE, ANSWER]
  silent = (*before, SKETCH, SILENT, TextTurn("", True), IMAGE, ANSWER)
  assert TASK.without_condition(turns) == silent
  assert TASK.without_condition([announced, IMAGE]) == (TextTurn("", True), IMAGE)


def test_a_conversation_that_paints_nothing_keeps_its_text():
  turns = (SKETCH, TextTurn("a cat", True))
  assert TASK.without_condition(turns) == turns
  assert TASK.prompt(turns) == () and TASK.target(turns) is None


def test_the_prompt_is_what_comes_before_the_last_image_to_paint():
  turns = [CAPTION, IMAGE, SKETCH, ANSWER, IMAGE, ANSWER]
  assert TASK.prompt(turns) == (CAPTION, IMAGE, SKETCH, ANSWER) and TASK.target(turns) is IMAGE
  assert text_of(TASK.prompt(turns)) == "a cat done"
  assert TASK.prompt([IMAGE]) == () and TASK.target([IMAGE]) is IMAGE


def test_the_grader_of_scenes_reads_what_a_caption_asks_and_a_picture_shows():
  task = ScenesTextToImage(World(grid=3, image_size=48))
  for index in range(20):
    scene = scene_of(index, "test", grid=3, min_objects=1, max_objects=9)
    turns = task.turns(scene, np.random.default_rng(index))
    (seen,) = task.grader.grade(task.target(turns).image[None])
    assert task.grader.expected(turns) == seen.scene == scene
    assert task.grader.score(scene, seen).exact
  other = render(Scene(3, (SceneObject("ring", "pink", "small", 0, 2),)), 48)
  assert not task.grader.score(scene, task.grader.grade(other[None])[0]).exact
