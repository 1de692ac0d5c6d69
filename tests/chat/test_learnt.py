"""What an answer is, by what the data of a run have the assistant say."""

import pytest

from omniimage.chat.learnt import Learnt, learnt
from tests import small

BOTH = {"stages.prior.weights.text": 1.0}


def of(changes: dict) -> Learnt:
  s = small.settings(**changes)
  return learnt(s, small.text_tokenizer(), small.omni(s).vocabulary)


@pytest.mark.parametrize("tasks, weights, answer, exchanges", [
  (("text_to_image",), {}, "image", 1),
  (("text_to_image", "caption"), {}, "image", 1),  # its words have no weight
  (("text_to_image",), BOTH, "image", 1),  # there are no words
  (("caption",), BOTH, "text", 1),
  (("text_to_image", "caption"), BOTH, "free", 1),
  (("text_to_image", "conversation"), BOTH, "image", 4),
])  # fmt: skip
def test_an_answer_is_what_was_taught(tasks, weights, answer, exchanges):
  assert of({"data.source.tasks": tasks, "data.sequence_length": 256, **weights}) == Learnt(answer, exchanges)


def test_where_the_data_are_gone_the_weights_alone_tell(tmp_path):
  gone = dict(name="records", path=str(tmp_path / "gone"), templates=("{}",), fit="crop", background=(255, 255, 255))
  assert of({"data.source": gone}) == Learnt("image", None)
  assert of({"data.source": gone, **BOTH}) == Learnt("free", None)


def test_a_model_of_single_exchanges_says_so():
  assert "learnt no text" in str(Learnt("image", 4)) and "single" not in str(Learnt("image", 4))
  assert "single exchanges" in str(Learnt("free", 1))
