"""Distances of distributions, where they are known."""

import itertools

import numpy as np
import pytest
from scipy.linalg import sqrtm

from omniimage.evaluation.measures.distributions import frechet_distance, kernel_distance, unbiased_mmd


def normal(n: int, seed: int = 0, dimensions: int = 6) -> np.ndarray:
  return np.random.default_rng(seed).standard_normal((n, dimensions))


def test_the_frechet_distance_of_a_set_and_itself_moved_is_the_square_of_how_far():
  x = normal(50)
  assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
  assert frechet_distance(x, x + np.array([3, 4, 0, 0, 0, 0])) == pytest.approx(25)


def test_the_frechet_distance_of_a_set_and_itself_stretched_is_that_of_the_deviations():
  x = normal(50)
  x -= x.mean(axis=0)
  assert frechet_distance(x, 3 * x) == pytest.approx(4 * np.trace(np.cov(x, rowvar=False)))


def test_the_frechet_distance_is_that_of_the_papers_formula():
  x, y = normal(80, 1) @ normal(6, 2), normal(60, 3) @ normal(6, 4) + 0.5
  a, b = (np.cov(values, rowvar=False) for values in (x, y))
  expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(a + b - 2 * sqrtm(a @ b).real)
  assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-6)


def test_the_frechet_distance_of_fewer_pictures_than_dimensions_is_a_number():
  assert 0 < frechet_distance(normal(5, 1), normal(4, 2)) < 100


def test_the_kernel_distance_is_the_mean_over_pairs_of_two():
  x, y = normal(4, 1, 3), normal(5, 2, 3)

  def k(a, b):
    return (a @ b / 3 + 1) ** 3

  within = [np.mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]) for z in (x, y)]
  assert unbiased_mmd(x, y) == pytest.approx(sum(within) - 2 * np.mean([k(a, b) for a in x for b in y]))


def test_the_kernel_distance_has_no_bias():
  """Over all ways to take few pictures of many it is on average that of the many, and over all ways to part one set
  in two it is zero."""
  x, y = normal(6, 1, 3), normal(6, 2, 3) + 1
  threes = [list(some) for some in itertools.combinations(range(6), 3)]
  few = np.mean([unbiased_mmd(x[some], y[others]) for some in threes for others in threes])
  assert few == pytest.approx(unbiased_mmd(x, y)) and few > 1
  parted = np.mean([unbiased_mmd(x[some], np.delete(x, some, axis=0)) for some in threes])
  assert parted == pytest.approx(0, abs=1e-12)


def test_the_kernel_distance_says_how_sure_it_is():
  few, many = (kernel_distance(normal(n, 1), normal(n, 2) + 1, np.random.default_rng(0)) for n in (20, 400))
  assert few.std > 2 * many.std > 0 and abs(many.mean - few.mean) < 3 * few.std
  again = kernel_distance(normal(400, 1), normal(400, 2) + 1, np.random.default_rng(0))
  assert again == many


def test_a_kernel_distance_of_three_pictures_is_refused():
  with pytest.raises(ValueError, match="needs 4 pictures of each"):
    kernel_distance(normal(3), normal(9), np.random.default_rng(0))
