"""What is answered many at once is what each session answers alone, and the short forms are those of a session."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image as Pillow

from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.errors import UserError
from omniimage.evaluation import replies
from omniimage.sampling.context import bucket
from omniimage.sampling.events import Image, TextEnd, turns_of
from tests import small


def _picture(seed: int, height: int = 16, width: int = 16) -> np.ndarray:
  return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


CONVERSATIONS = (
  ["a red star"],
  ["a red star", ImageTurn(_picture(0), True), _picture(1), "now with a blue ring in the top left"],
  [_picture(2), "what is it"],
)
SEEDS = (5, 2**40, 7)


def _ended(session, kind):
  return next(event for event in session if isinstance(event, kind))


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_images_drawn_at_once_are_those_of_each_session(guidance):
  """Conversations of different lengths and numbers of images, at temperature 1."""
  generator = small.generator()
  drawing = generator.draw_after(CONVERSATIONS, SEEDS, guidance=guidance)
  for n, (turns, seed) in enumerate(zip(CONVERSATIONS, SEEDS)):
    image = _ended(generator.session(turns, seed, guidance=guidance), Image)
    np.testing.assert_array_equal(drawing.codes[n], image.codes)
    np.testing.assert_allclose(drawing.images[n], image.pixels, atol=1e-5)
    np.testing.assert_allclose(drawing.rendering[n], image.rendering, atol=1e-5)


@pytest.mark.parametrize("liked", ["eos", "image"])
def test_texts_written_at_once_are_those_of_each_session(liked):
  """Those that end and those that have no more room, which each row has of its own."""
  generator = small.fond_of(liked)
  texts = generator.write_after(CONVERSATIONS, SEEDS)
  ends = [_ended(generator.session(turns, seed, "text"), TextEnd) for turns, seed in zip(CONVERSATIONS, SEEDS)]
  assert texts == [end.text for end in ends] and len(set(texts)) == 3
  assert liked in {end.reason for end in ends}


def test_replies_do_not_depend_on_the_batch_they_are_in():
  generator = small.fond_of("eos")
  some = [list(map(_turn, turns)) for turns in CONVERSATIONS]
  one, all_at_once = (replies.written(generator, some, 3, batch) for batch in (1, 3))
  assert one == all_at_once and len(set(one)) == 3
  one, all_at_once = (replies.painted(generator, some, 3, batch).codes for batch in (1, 3))
  np.testing.assert_array_equal(one, all_at_once)
  assert len(np.unique(one, axis=0)) == 3


def _turn(part):
  if isinstance(part, str):
    return TextTurn(part, False)
  return ImageTurn(part, False) if isinstance(part, np.ndarray) else part


def test_an_answer_goes_on_through_texts_and_images_until_the_model_ends_it():
  """Each part is one of its kind, and the parts are those that the conversation up to them has next."""
  generator = small.fond_of("image", "eos")
  answers = ((seed, list(generator.session("a star", seed, "free"))) for seed in range(40))
  seed, events = next(
    (seed, events) for seed, events in answers if sum(isinstance(event, Image) for event in events) > 1
  )
  ends = [event for event in events if isinstance(event, TextEnd | Image)]
  assert isinstance(ends[0], TextEnd) and isinstance(ends[-1], TextEnd), seed
  for end, following in itertools.pairwise(ends):
    assert isinstance(following, TextEnd) == isinstance(end, Image)
  assert {end.reason for end in ends[:-1] if isinstance(end, TextEnd)} == {"image"} and ends[-1].reason != "image"
  first, second = [event for event in events if isinstance(event, Image)][:2]
  said = [TextTurn(ends[0].text, True)] if ends[0].text else []
  said += [ImageTurn(first.codes, True)] + ([TextTurn(ends[2].text, True)] if ends[2].text else [])
  assert (first.codes != second.codes).any(), "another image has another noise"
  (drawn,) = [event for event in generator.session("a star", seed, "image") if isinstance(event, Image)]
  assert (drawn.codes == first.codes).all() or ends[0].text, "the first has the noise of an image alone"
  kinds = [type(turn) for turn in turns_of(events)]
  assert kinds.count(ImageTurn) == sum(isinstance(end, Image) for end in ends)


def test_short_forms_are_sessions():
  generator, picture = small.fond_of("eos"), _picture(3)
  assert generator.caption(picture, 4) == _ended(generator.session([picture], 4, "text"), TextEnd).text
  edited = generator.edit(picture, "larger", 4)
  image = _ended(generator.session([picture, "larger"], 4), Image)
  np.testing.assert_array_equal(edited, np.round((image.pixels + 1) * 127.5).astype(np.uint8))
  (shown,) = generator.chat([picture, "larger"], 4, "image")
  np.testing.assert_array_equal(shown.image, edited)
  assert shown.is_target
  drawing = generator.draw("a star", 2, seed=4)
  assert drawing.codes.shape == (2, 2, 2) and (drawing.codes[0] != drawing.codes[1]).any()


def test_pictures_of_any_size_come_to_the_models_as_those_of_the_data_do(tmp_path):
  generator = small.generator()
  wide = np.zeros((16, 48, 3), np.uint8)
  wide[:, 16:32] = _picture(4)  # the middle, which is cropped
  file = tmp_path / "wide picture.png"
  Pillow.fromarray(wide).save(file)
  turned = io.BytesIO()
  Pillow.fromarray(np.rot90(wide)).save(turned, "PNG", exif=_upright_by(6))
  given = [wide, Pillow.fromarray(wide), file, Pillow.open(turned), Pillow.fromarray(wide).convert("RGBA")]
  expected = np.asarray(generator.encode(_picture(4)[None]))[0]
  for picture in given:
    encoded = generator.session([picture])  # refuses nothing
    encoded.cancel()
    (row,), _ = generator._read([[picture]], image_next=True)
    v = generator.omni.vocabulary
    np.testing.assert_array_equal(row[row >= v.codes] - v.codes, expected.ravel(), err_msg=repr(type(picture)))
  with pytest.raises(UserError, match=r"gone.png cannot be read: No such file"):
    generator.caption(str(tmp_path / "gone.png"))
  (tmp_path / "text.png").write_text("no picture")
  with pytest.raises(UserError, match=r"text.png cannot be read: no picture: text; give another picture"):
    generator.edit(tmp_path / "text.png", "larger")


def _upright_by(orientation: int) -> Pillow.Exif:
  exif = Pillow.Exif()
  exif[0x0112] = orientation
  return exif


def test_an_answer_of_no_kind_is_refused():
  with pytest.raises(UserError, match=r"answer='picture' must be one of image, text, free, image_first"):
    small.generator().session("a star", answer="picture")


def test_buckets_leave_at_most_a_third_unused():
  found = sorted({bucket(n, 16) for n in range(1, 1000)})
  assert found == [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
  assert all(n <= bucket(n, 16) < max(17, 1.5 * n) for n in range(1, 1000)) and bucket(5, 1) == 6
