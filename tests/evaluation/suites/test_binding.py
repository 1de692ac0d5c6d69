"""Binding: the figures are what the pictures imply, and every error is found in its cell."""

import dataclasses
import itertools

import numpy as np
import pytest

from omniimage.data.scenes.captions import parse
from omniimage.data.scenes.distinct import distinct_scenes
from omniimage.data.scenes.grader import grade
from omniimage.data.scenes.world import Scene, SceneObject, render, split_of
from omniimage.data.sources.emoji import EmojiSettings
from omniimage.errors import UserError
from omniimage.evaluation.held_out import deal, in_batches
from omniimage.evaluation.suites.binding import Fault, binding, faults
from tests.evaluation.fakes import FakeGenerator, recolored, settings

STAR = SceneObject("star", "red", "large", 0, 0)
RING = SceneObject("ring", "blue", "small", 1, 1)


def measured(prompts: int = 40, batch: int = 16, **fake):
  s = settings()
  generator = FakeGenerator(s, **fake)
  return binding(generator, prompts, seed=0, batch=batch), generator


def test_pictures_of_what_was_asked_score_one_in_every_figure():
  figures = measured()[0].figures()
  perfect = {"objects": 1.0, "scenes": 1.0, "by_count": dict.fromkeys("1234", 1.0), "mistakes": {}}
  kinds = {kind: perfect for kind in ("rendering", "true_tokens", "reconstruction")}
  assert figures == {**perfect, "prompts": 40, "prompts_by_count": {"1": 9, "2": 11, "3": 10, "4": 10}, **kinds}


def test_one_wrong_color_a_picture_costs_one_object_of_each_and_every_picture():
  result, _ = measured(painted=recolored)
  figures = result.figures()
  objects = sum(len(scene.objects) for scene in result.scenes)
  assert figures["objects"] == pytest.approx(1 - 40 / objects) and figures["scenes"] == 0
  assert figures["by_count"] == pytest.approx({"1": 0, "2": 1 / 2, "3": 2 / 3, "4": 3 / 4})
  assert figures["mistakes"] == {"color": 40}
  assert figures["rendering"]["objects"] == figures["reconstruction"]["scenes"] == 1
  assert figures["true_tokens"]["objects"] == figures["objects"]


def test_an_object_more_leaves_the_objects_bound_but_not_the_picture_right():
  def with_another(scene: Scene) -> Scene:
    taken = {item.cell for item in scene.objects}
    free = next((cell for cell in np.ndindex(2, 2) if cell not in taken), None)
    more = (dataclasses.replace(RING, row=free[0], column=free[1]),) if free else ()
    return Scene(2, (*scene.objects, *more))

  result, _ = measured(painted=with_another)
  full = sum(len(scene.objects) == 4 for scene in result.scenes)
  assert result.figures()["objects"] == 1 and result.figures()["scenes"] == full / 40
  assert result.figures()["mistakes"] == {"extra": 40 - full}


def test_prompts_are_held_out_scenes_in_the_order_of_the_test_split():
  result, _ = measured(prompts=7)
  first = itertools.islice(distinct_scenes("test", 2**14, grid=2, min_objects=1, max_objects=4), 7)
  assert [scene for _, scene in first] == list(result.scenes)
  assert [split_of(scene) for scene in result.scenes] == ["test"] * 7
  assert [parse(caption, 2) for caption in result.captions] == list(result.scenes)
  assert (result.images == np.stack([render(scene, 32) for scene in result.scenes])).all()
  assert [len(scene.objects) for scene in result.scenes] == [1, 2, 3, 4, 1, 2, 3]


def test_true_tokens_are_the_codes_of_the_true_images_in_their_order():
  result, generator = measured(prompts=10, batch=4)
  given = {codes.tobytes() for batch in generator.repainted for codes in batch}
  assert given == {codes.tobytes() for codes in generator.encode(result.images)}
  assert (result.answers["true_tokens"][3].image == result.images[3]).all()


def test_every_batch_has_one_size_and_noise_of_its_own():
  _, generator = measured(prompts=10, batch=4)
  sizes, seeds = zip(*generator.calls)
  assert sizes == (4,) * 6  # three batches of sampled tokens and three of true ones
  assert len(set(seeds[:3])) == 3 and seeds[:3] == seeds[3:]


def test_batches_are_dealt_so_that_their_longest_prompts_are_alike():
  lengths = np.random.default_rng(0).integers(9, 45, size=100)
  dealt = deal(lengths, 16)
  assert sorted(np.concatenate(dealt)) == list(range(100)) and max(map(len, dealt)) <= 16
  longest = [lengths[batch].max() for batch in dealt]
  assert max(longest) - min(longest) <= 4
  assert (in_batches(lambda indices, _: lengths[indices], lengths, 16) == lengths).all()


@pytest.mark.parametrize(
  "shown, expected",
  [
    ((STAR, RING), []),
    ((dataclasses.replace(STAR, color="blue"), RING), [Fault((0, 0), "blue instead of red")]),
    (
      (STAR, dataclasses.replace(RING, shape="star", size="large")),
      [Fault((1, 1), "star instead of ring, large instead of small")],
    ),
    ((STAR,), [Fault((1, 1), "missing")]),
    ((STAR, dataclasses.replace(RING, row=0)), [Fault((1, 1), "stands in another cell")]),
    (
      (STAR, RING, SceneObject("heart", "pink", "small", 0, 1)),
      [Fault((0, 1), "small pink heart not asked for")],
    ),
  ],
)
def test_what_is_wrong_is_said_of_its_cell(shown, expected):
  assert list(faults(Scene(2, (STAR, RING)), grade(render(Scene(2, shown), 32), 2))) == expected


def test_a_smeared_cell_is_unclear_whether_asked_for_or_not():
  image = render(Scene(2, (STAR,)), 32)
  image[:16, 16:] = image[:16, :16] // 2 + render(Scene(2, (RING,)), 32)[16:, 16:] // 2
  assert list(faults(Scene(2, (STAR,)), grade(image, 2))) == [Fault((0, 1), "unclear")]
  image[:16, :16] = image[:16, 16:]
  assert faults(Scene(2, (STAR,)), grade(image, 2))[0] == Fault((0, 0), "unclear")


def test_a_run_of_other_pictures_is_refused_in_one_line():
  s = settings()
  s = dataclasses.replace(s, data=dataclasses.replace(s.data, source=EmojiSettings("emoji")))
  with pytest.raises(UserError, match=r"binding grades answers that no task asks for: this run has learnt emoji$"):
    binding(FakeGenerator(s), 4, 0)
