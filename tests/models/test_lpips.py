"""LPIPS: the numbers of the published implementation, for weights that need no file."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.models.lpips import NETWORKS, Lpips, enlargement, flops
from tests.made_lpips import made, pictures


@pytest.mark.parametrize(
  ("network", "kind", "size", "distance", "features"),
  [
    ("alexnet", "patterned", (32, 32), 0.007397127337753773, 10.367919921875),
    ("alexnet", "smooth", (64, 80), 0.12631475925445557, 9.640497207641602),
    ("vgg16", "patterned", (32, 32), 0.051813434809446335, 16.42432403564453),
    ("vgg16", "smooth", (64, 80), 0.14066585898399353, 16.089637756347656),
  ],
)
def test_distances_and_features_are_those_of_the_published_implementation(network, kind, size, distance, features):
  """The package lpips 0.1.4 under PyTorch, with these weights; the sum of the features of its last layer."""
  picture, like = pictures(kind, *size)[:, None]
  lpips = made(network)
  assert float(jax.jit(lpips)(picture, like)[0]) == pytest.approx(distance, rel=1e-4)
  assert float(jax.jit(lpips.features)(picture).sum()) == pytest.approx(features, rel=1e-5)


def test_features_are_named_by_network_and_layer():
  assert made("alexnet").of_features == "alexnet_relu5" and made("vgg16").of_features == "vgg16_relu5_3"


def test_a_picture_is_at_no_distance_from_itself_whatever_stands_beside_it():
  lpips, (picture, like) = made("alexnet"), pictures("smooth", 40, 40)
  distance = jax.jit(lpips)
  same, one, other = map(float, distance(np.stack([picture, like, picture]), np.stack([picture, picture, like])))
  assert same == 0 and one == pytest.approx(other, rel=1e-5) and one > 0.01
  assert float(distance(like[None], picture[None])[0]) == pytest.approx(one, rel=1e-5)


def test_a_step_along_the_gradient_brings_pictures_as_much_nearer_as_it_says():
  lpips, (picture, like) = made("alexnet"), pictures("smooth", 40, 40)[:, None]
  distance, step = jax.jit(jax.value_and_grad(lambda x: lpips(x, picture).sum())), 1e-3
  before, gradient = distance(like)
  slope = float(jnp.linalg.norm(gradient))
  after, _ = distance(like - step * gradient / slope)
  assert float(before - after) == pytest.approx(step * slope, rel=0.1) and slope > 1e-3


def test_where_no_feature_is_active_there_is_a_gradient():
  """A layer of zeros has no direction: its normalization must not be a division of zero by zero."""
  lpips = made("alexnet")
  dead = Lpips(
    "alexnet", {k: v if k.startswith("head") else jax.tree.map(np.zeros_like, v) for k, v in lpips.params.items()}
  )
  picture, like = pictures("smooth", 40, 40)[:, None]
  value, gradient = jax.jit(jax.value_and_grad(lambda x: dead(x, picture).sum()))(like)
  assert value == 0 and np.isfinite(gradient).all()


@pytest.mark.parametrize(("network", "side", "times"), [("alexnet", 16, 2), ("alexnet", 31, 1)])
def test_pictures_that_a_network_cannot_read_are_enlarged(network, side, times):
  assert enlargement(network, side, side + 8) == times and enlargement("vgg16", 8, 40) == 2
  picture, like = pictures("smooth", side, side + 8)[:, None]
  enlarged = [x.repeat(times, axis=1).repeat(times, axis=2) for x in (picture, like)]
  distance = jax.jit(made(network))
  own = float(distance(picture, like)[0])
  assert own == pytest.approx(float(distance(*enlarged)[0]), rel=1e-6) and own > 0


@pytest.mark.parametrize(("network", "products"), [("alexnet", 655_566_528), ("vgg16", 15_346_630_656)])
def test_flops_are_those_of_the_convolutions_as_they_are_known(network, products):
  assert flops(network, 224, 224) == 2 * products and set(NETWORKS) == {"alexnet", "vgg16"}
