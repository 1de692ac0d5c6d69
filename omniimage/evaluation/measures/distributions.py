"""How like the true pictures are drawn ones as a set, by features of them?

What the numbers mean depends on the network whose features these are, so it is named wherever they are: only those of
InceptionV3 may be called FID, and ours are not.

Axes: n pictures, D numbers of a feature.
"""

from typing import NamedTuple

import numpy as np

SUBSETS, LARGEST_SUBSET = 100, 1000  # as the paper of the kernel distance has them
FEWEST = 4  # pictures that have a kernel distance


class Estimate(NamedTuple):
  mean: float
  std: float


def frechet_distance(features: np.ndarray, real_features: np.ndarray) -> float:
  """|μ − μ'|² + tr(Σ + Σ' − 2(ΣΣ')^½) of the normal distributions with these means and covariances (Heusel et al.
  2017, arXiv 1706.08500).

  It is too large by what few pictures cannot tell of a covariance: compare figures of one number of pictures only.

  Args:
    features, real_features: (n, D), at least two of each; the numbers may differ.
  """
  (mean, covariance), (real_mean, real_covariance) = map(_moments, (features, real_features))
  root = _root(covariance)
  # ΣΣ' has the eigenvalues of Σ^½ Σ' Σ^½, which is symmetric.
  mixed = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ real_covariance @ root), 0)).sum()
  difference = np.sum(np.square(mean - real_mean))
  return float(max(difference + np.trace(covariance) + np.trace(real_covariance) - 2 * mixed, 0.0))


def kernel_distance(features: np.ndarray, real_features: np.ndarray, rng: np.random.Generator) -> Estimate:
  """The squared maximum mean discrepancy of the kernel (x·y/D + 1)³, estimated without bias: KID of these features
  (Bińkowski et al. 2018, arXiv 1801.01401).

  The mean over random subsets and the standard deviation over them. About 0, or a little below, where both sets are of
  one distribution. A subset has half of the pictures, at most 1,000: the smaller set says how many there are.

  Args:
    features, real_features: (n, D), at least FEWEST of each; the numbers may differ.
    rng: draws the subsets.

  Raises:
    ValueError: there are fewer.
  """
  size = min(LARGEST_SUBSET, len(features) // 2, len(real_features) // 2)
  if size < FEWEST // 2:
    raise ValueError(f"a kernel distance needs {FEWEST} pictures of each kind")
  x, y = (values.astype(np.float64) for values in (features, real_features))
  estimates = [unbiased_mmd(*(_subset(values, size, rng) for values in (x, y))) for _ in range(SUBSETS)]
  return Estimate(float(np.mean(estimates)), float(np.std(estimates)))


def unbiased_mmd(x: np.ndarray, y: np.ndarray) -> float:
  """Of x (m, D) and y (n, D): the mean of k(x, x') and k(y, y') over pairs of two, less twice that of k(x, y)."""
  within = [
    (kernel.sum() - np.trace(kernel)) / (len(kernel) * (len(kernel) - 1)) for kernel in (_cubic(x, x), _cubic(y, y))
  ]
  return float(sum(within) - 2 * _cubic(x, y).mean())


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return (x @ y.T / x.shape[1] + 1) ** 3


def _subset(values: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
  return values[rng.choice(len(values), size, replace=False)]


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  features = features.astype(np.float64)
  return features.mean(axis=0), np.cov(features, rowvar=False, ddof=1).reshape(features.shape[1], -1)


def _root(covariance: np.ndarray) -> np.ndarray:
  values, vectors = np.linalg.eigh(covariance)
  return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
