"""What Omni takes for a stage, and what it refuses before anything is compiled."""

import pytest

from omniimage.settings import SettingsError, from_config
from omniimage.systems import open_system
from tests import small


def _open(changes: dict):
  """The system of a config with some keys, dotted, set to other values or added."""
  config = small.config().to_dict()
  small.put(config, changes)
  return open_system(from_config(config), small.text_tokenizer().size)


@pytest.mark.parametrize(
  "changes, said",
  [
    ({"system": "omnii"}, "config.system='omnii' is not a system; there are omni"),
    ({"stages.prior.rates.decoder": 0.1}, "config.stages.prior: rates.decoder=0.1, but nothing teaches the decoder: "),
    ({"stages.prior.rates.tokenizer": 0.1}, "nothing teaches the tokenizer: give a weight to pixel or diffusion"),
    ({"stages.prior.rates.painter": 0.1}, "config.stages.prior.rates.painter is not a setting; there are tokenizer, "),
    ({"stages.joint.weights.pixels": 1.0}, "did you mean config.stages.joint.weights.pixel?"),
    ({"stages.prior.weights.image": 0.0}, "config.stages.prior: a stage needs a loss weight above zero, of pixel, "),
    ({"stages.prior.sampled_codes": 0.5}, "sampled_codes=0.5 is for painting: give weights.diffusion a weight"),
    ({"data.images_per_row": 0}, "config.stages.tokenizer: weights.pixel need images: set data.images_per_row=0 to 1"),
    (
      {"data.images_per_row": 0, "schedule": ("joint",)},
      "weights.image and weights.diffusion and weights.pixel need images",
    ),
  ],
)
def test_a_stage_that_cannot_be_trained_is_one_line_that_names_what_to_change(changes, said):
  with pytest.raises(SettingsError) as raised:
    _open(changes)
  assert said in str(raised.value) and "\n" not in str(raised.value)


def test_stages_that_the_schedule_passes_over_may_be_what_they_like():
  text_alone = {"stages.prior.weights.image": 0.0, "stages.prior.weights.text": 1.0}
  _open({"data.images_per_row": 0, "schedule": ("prior",), **text_alone})
