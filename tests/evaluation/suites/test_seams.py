"""Seams: a planted step between chunks is found, and nothing else passes for one."""

import numpy as np
import pytest

from omniimage.data.scenes.world import render, scene_of
from omniimage.evaluation.suites.binding import binding
from omniimage.evaluation.suites.seams import border_energies, seam_ratio, seams, seams_of
from tests.evaluation.fakes import FakeGenerator, settings


def noise(n: int = 24, height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).uniform(-0.5, 0.5, size=(n, height, width, 3))


def with_step(images: np.ndarray, rows: list[int], step: float = 0.3) -> np.ndarray:
  """Images that are brighter by `step` from each of these pixel rows on, alternately darker again."""
  sign = np.zeros(images.shape[1])
  for i, row in enumerate(rows):
    sign[row:] += step * (-1) ** i
  return images + sign[:, None, None]


def test_images_without_seams_have_a_ratio_of_one():
  assert seam_ratio(noise(), noise(), 4, (2, 0)) == 1
  assert seam_ratio(noise(seed=1), noise(seed=2), 4, (2, 0)) == pytest.approx(1, abs=0.05)


def test_a_step_between_chunks_raises_the_ratio_and_a_larger_one_raises_it_more():
  small, large = (seam_ratio(with_step(noise(), [8, 16, 24], step), noise(), 4, (2, 0)) for step in (0.2, 0.4))
  # Steps of uniform noise have an energy of 1/6; the planted one adds its square.
  assert small == pytest.approx(1 + 6 * 0.2**2, abs=0.05) and large == pytest.approx(1 + 6 * 0.4**2, abs=0.1)


def test_a_step_between_patches_of_one_chunk_is_no_seam():
  assert seam_ratio(with_step(noise(), [4, 12, 20]), noise(), 4, (2, 0)) < 1


def test_a_step_inside_a_patch_changes_nothing():
  assert seam_ratio(with_step(noise(), [6, 14]), noise(), 4, (2, 0)) == pytest.approx(1, abs=1e-2)


def test_edges_that_the_real_images_have_too_are_no_seams():
  edged = with_step(noise(), [8, 16, 24], 0.5)
  assert seam_ratio(edged, edged, 4, (2, 0)) == 1
  assert seam_ratio(noise(), edged, 4, (2, 0)) < 0.5


def test_a_canvas_of_one_chunk_has_no_seams():
  assert seam_ratio(noise(), noise(seed=1), 4, (0, 0)) == seam_ratio(noise(), noise(seed=1), 4, (8, 0)) == 1


def test_single_patch_rows_are_compared_with_the_borders_of_columns():
  assert seam_ratio(noise(seed=1), noise(seed=2), 4, (1, 0)) == pytest.approx(1, abs=0.05)
  assert seam_ratio(with_step(noise(), [4, 8, 12, 16, 20, 24, 28]), noise(), 4, (1, 0)) > 1.3


def test_blocks_have_seams_between_columns_too():
  stepped = with_step(noise(), [16])
  across = np.swapaxes(stepped, 1, 2)
  assert seam_ratio(across, noise(), 4, (4, 4)) == pytest.approx(seam_ratio(stepped, noise(), 4, (4, 4)), rel=1e-6)
  assert seam_ratio(across, noise(), 4, (4, 4)) > 1.1 > 1.01 > seam_ratio(across, noise(), 4, (4, 0))
  assert seam_ratio(noise(seed=1), noise(seed=2), 4, (4, 2)) == pytest.approx(1, abs=0.05)


def test_flat_borders_of_real_images_do_not_make_seams_of_the_faintest_noise():
  # Painted as two chunks, the border of the scenes runs between their cells, where nothing is drawn.
  real = np.stack([render(scene_of(i, "test", grid=2, min_objects=1, max_objects=4), 32) for i in range(64)])
  assert border_energies(real, 4, (4, 0))[0] == 0
  gray_level = np.random.default_rng(0).integers(-1, 2, size=real.shape)
  assert seam_ratio(np.clip(real + gray_level, 0, 255).astype(np.uint8), real, 4, (4, 0)) < 1.2


def test_perfect_drawings_of_held_out_prompts_are_seamless():
  s = settings()
  figures = seams(FakeGenerator(s), prompts=12, seed=0, batch=8).figures()
  assert figures["ratio"] == 1 and figures["chunks"] == 2 and figures["prompts"] == 12
  assert figures["painted"] == figures["true"] and figures["true"]["patch_step"] > 1


def test_pictures_that_binding_has_drawn_give_the_same_figures():
  s = settings()
  drawn = binding(FakeGenerator(s), 12, seed=0)
  assert seams_of(drawn, s).figures() == seams(FakeGenerator(s), prompts=12, seed=0).figures()


def test_a_canvas_painted_at_once_is_not_even_drawn():
  generator = FakeGenerator(settings(chunk_rows=0))
  figures = seams(generator, prompts=4, seed=0).figures()
  assert figures == {"ratio": 1.0, "chunks": 1, "chunk_rows": 0, "chunk_columns": 0, "prompts": 4}
  assert generator.calls == []
