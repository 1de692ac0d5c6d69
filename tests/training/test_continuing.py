"""What may change in the config of a run that goes on."""

import copy

import pytest

from omniimage.errors import UserError
from omniimage.training.continuing import check_config
from tests import small

STORED = small.config().to_dict()
END = 40  # four stages of ten steps: tokenizer, prior, decoder, joint


def changed(**changes):
  return small.config(**changes).to_dict()


def test_the_same_config_says_nothing(caplog):
  check_config(STORED, copy.deepcopy(STORED), "runs/a", END)
  assert not caplog.records


@pytest.mark.parametrize(
  "changes", [{"prior.depth": 3}, {"tokenizer.levels": (4, 4)}, {"data.image_size": 24}, {"data.vocabulary": "x.json"}]
)
def test_another_model_is_an_error_that_names_what_differs(changes):
  ((path, value),) = changes.items()
  with pytest.raises(UserError, match=f"runs/a was trained with another model: {path} is .* there and ") as error:
    check_config(STORED, changed(**changes), "runs/a", END)
  assert repr(value) in str(error.value) and "\n" not in str(error.value)


def test_a_key_that_one_of_them_lacks_is_named():
  given = copy.deepcopy(STORED)
  del given["prior"]["qk_norm"]
  with pytest.raises(UserError, match=r"prior\.qk_norm is True there and not set here"):
    check_config(STORED, given, "runs/a", END)


def test_the_layouts_are_free_until_the_painter_has_learnt_them():
  given, longer = changed(**{"decoder.chunk_rows": (1,)}), changed(**{"stages.prior.steps": 99})
  check_config(STORED, given, "runs/a", step=20)
  with pytest.raises(UserError, match=r"another model: decoder\.chunk_rows is "):
    check_config(STORED, {**given, "stages": longer["stages"]}, "runs/a", step=21)
  with pytest.raises(UserError, match=r"another model: decoder\.depth is "):
    check_config(STORED, changed(**{"decoder.depth": 3}), "runs/a", step=0)


def test_schedules_logging_and_mesh_may_change_and_it_is_logged(caplog):
  given = changed(**{"stages.prior.steps": 99, "run.log_every": 7, "mesh.fsdp": 2, "optimizer.b2": 0.9})
  check_config(STORED, given, "runs/a", END)
  text = caplog.text
  assert "stages.prior.steps is 10 there and 99 here" in text and "run.log_every" in text and "mesh.fsdp" in text
