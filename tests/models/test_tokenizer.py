import jax
import numpy as np

from tests import small


def test_one_tokenizer_reads_images_of_any_size():
  s = small.settings()
  model = small.omni(s)
  params = model.view(small.params(model))
  for height, width in ((16, 16), (8, 32)):
    images = jax.random.uniform(jax.random.key(0), (2, height, width, 3), minval=-1)
    features, codes, _, states, _ = model.encode(params, images)
    assert codes.shape == states.shape[:-1] == (2, height // 8, width // 8)
    np.testing.assert_allclose(model.features(params, codes), features, atol=1e-6)
    assert model.render(params, features).shape == images.shape


def test_a_decoder_may_paint_more_pixels_than_the_tokenizer_reads():
  s = small.settings(**{"decoder.pixels_per_token": 16, "data.image_size": 32})
  model = small.omni(s)
  assert (model.reduction, s.buckets[0].rows, s.canvas) == (2, 2, (8, 8))
  images = jax.random.uniform(jax.random.key(0), (1, 1, 32, 32, 3))
  small_images = model.shrink(images)
  np.testing.assert_allclose(small_images[0, 0, 1, 2], images[0, 0, 2:4, 4:6].mean((0, 1)), rtol=1e-6)
  assert model.encode(model.view(small.params(model)), small_images).codes.shape == (1, 1, 2, 2)
