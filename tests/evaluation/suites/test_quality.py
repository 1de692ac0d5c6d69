"""Quality: what is drawn well and badly is told apart, and what lacks weights says so."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("safetensors", reason="the extra `interop`")

from omniimage.evaluation.suites.binding import binding
from omniimage.evaluation.suites.quality import QualitySuite, quality, quality_of, reduced, see
from omniimage.sampling.drawing import Drawing
from tests.evaluation.fakes import FakeGenerator, recolored, settings
from tests.made_lpips import made, write

KEYS = ["true_tokens", "frechet_alexnet_relu5", "kid_alexnet_relu5", "kid_alexnet_relu5_std", "patch_border_ratio"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
  path = tmp_path_factory.mktemp("lpips") / "alexnet.safetensors"
  write(path, made("alexnet"))
  return str(path)


def of(weights: str, *painted) -> FakeGenerator:
  return FakeGenerator(dataclasses.replace(settings(), lpips=weights), *painted)


class Rough(FakeGenerator):
  """Paints every second patch brighter."""

  def __call__(self, prompts: list[str], seed: int = 0) -> Drawing:
    drawing = super().__call__(prompts, seed)
    row = np.arange(32) // self.patch_size
    return drawing.replace(images=drawing.images - 0.3 * ((row[:, None] + row) % 2)[..., None])


def test_perfect_drawings_have_perfect_figures(weights):
  figures = quality(of(weights), prompts=12, seed=0, batch=8).figures()
  assert list(figures) == [*KEYS, "prompts"] and figures["prompts"] == 12
  assert figures["true_tokens"] == {"psnr_db": 100, "ssim": pytest.approx(1), "lpips_alexnet": 0}
  assert figures["patch_border_ratio"] == 1 and figures["frechet_alexnet_relu5"] == pytest.approx(0, abs=1e-4)
  assert abs(figures["kid_alexnet_relu5"]) < 2 * figures["kid_alexnet_relu5_std"]


def test_what_is_painted_roughly_is_worse_in_every_figure(weights):
  s = dataclasses.replace(settings(), lpips=weights)
  good, rough = (quality(kind(s), prompts=12, seed=0).figures() for kind in (FakeGenerator, Rough))
  assert rough["patch_border_ratio"] > 1.5
  assert rough["true_tokens"]["psnr_db"] < 30 and rough["true_tokens"]["ssim"] < 0.95
  assert rough["true_tokens"]["lpips_alexnet"] > 0.01
  for name in ("frechet_alexnet_relu5", "kid_alexnet_relu5"):
    assert rough[name] > good[name]
  assert rough["frechet_alexnet_relu5"] > 1e-6


def test_pictures_that_binding_has_drawn_give_the_same_figures(weights):
  generator = of(weights, recolored)
  assert quality_of(binding(generator, 8, seed=0), generator, 0).figures() == quality(generator, 8, 0).figures()


def test_without_weights_the_rest_is_measured_and_two_lines_say_how_to_get_them(tmp_path):
  figures = quality(of(str(tmp_path / "none.safetensors")), prompts=4, seed=0).figures()
  assert set(figures) == {"true_tokens", "patch_border_ratio", "lacks", "prompts"}
  assert set(figures["true_tokens"]) == {"psnr_db", "ssim"}
  said = QualitySuite().lines({**figures, "asked": 4})
  (place,) = (number for number, line in enumerate(said) if "not measured" in line)
  assert said[place].endswith("none.safetensors") and "`pip download" in said[place + 1]
  assert "launch.convert --source=" in said[place + 1]
  assert figures["lacks"] in QualitySuite().section({**figures, "asked": 4})


def test_what_plans_nothing_is_measured_as_a_set(weights):
  generator = of(weights)
  generator.plans = False
  figures = quality(generator, prompts=4, seed=0).figures()
  assert list(figures) == [*KEYS[1:], "prompts"] and generator.repainted == []


def test_every_figure_is_named_with_its_network(weights):
  figures = {**quality(of(weights), prompts=4, seed=0).figures(), "asked": 9}
  for text in (QualitySuite().section(figures), "\n".join(QualitySuite().lines(figures))):
    for said in ("LPIPS (alexnet)", "Fréchet distance of alexnet_relu5", "kernel distance of alexnet_relu5"):
      assert f"{said}, " in text
    assert "4 held-out prompts, all different; 9 were asked for" in text


def test_batches_change_nothing_of_what_is_seen():
  true, images = np.random.default_rng(0).integers(0, 256, (2, 5, 32, 40, 3)).astype(np.uint8)
  whole, pieces = (see(made("alexnet"), true, images, images, batch) for batch in (5, 2))
  for name in ("drawn", "true", "distances"):
    np.testing.assert_allclose(getattr(whole, name), getattr(pieces, name), rtol=1e-4, atol=1e-6)


def test_true_pictures_are_averaged_to_what_is_rendered():
  images = np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3)
  small = reduced(images, 2)
  assert small.shape == (2, 2, 2, 3) and small[0, 0, 0, 0] == round((0 + 3 + 12 + 15) / 4)
  assert reduced(images, 4) is images
