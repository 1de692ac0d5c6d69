"""The painter's error: flow matching, and mean velocities for few steps.

Axes: B rows, I image slots a row, F = B·I images, N patches of the canvas, M finished patches, P pixels of a patch, R
groups of patches of one time, S text states, D prior width, h × w visual tokens, Z their channels.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jax import Array

from omniimage.models.attention import AttentionMask, dot_product_attention
from omniimage.models.chunks import ChunkLayout, DoubledChunks
from omniimage.models.flow import SHORTEST_TIME_LEFT, flow_error, interpolate, velocity
from omniimage.models.layers import patchify, unpatchify
from omniimage.models.lpips import Lpips
from omniimage.models.omni import Omni, Params
from omniimage.streams import Stream
from omniimage.systems.draws import of_images
from omniimage.systems.perceptual import late_distances

OF_PAINTING = ("sampled_codes", "corrupted_codes", "few_steps")  # settings of a stage that are for a painter of codes
LEAST_ERROR = 0.01  # of velocities: what is learnt better than that counts less


def trained_layouts(omni: Omni, rows: int, columns: int) -> list[ChunkLayout]:
  """The painter's chunk layouts of images of rows × columns visual tokens, one of which every update uses."""
  return [omni.layout(rows, columns, *entry) for entry in omni.settings.decoder.layouts]


def paint_errors(
  omni: Omni,
  params: Params,
  images_BIHW3: Array,
  features_BIhwZ: Array,
  text: tuple[Array, Array],
  keys: Array,
  layout: ChunkLayout,
  few_steps: float = 0.0,
  lpips: Lpips | None = None,
) -> tuple[Array, ...]:
  """Error (B, I) of painting images, each chunk from its own time and noise: flow matching or, if a share of the images
  is to learn few steps, `mean_velocity_error`; with `lpips` that of what is predicted, too.

  The sequence is [finished | noisy]; the finished copy carries light noise and says so (t = 1 − σ).

  Args:
    text: of `Pass.text_states`.
    keys: (B,), one a row.
  """
  s = omni.settings.decoder
  B, I = images_BIHW3.shape[:2]
  clean_FNP = layout.ordered(patchify(images_BIHW3, s.patch_size).reshape(B * I, -1, 3 * s.patch_size**2))
  M, chunk = layout.finished, layout.chunk_of_group

  draw = functools.partial(of_images, keys, I)
  t_FR = jax.nn.sigmoid(s.time_mean + s.time_std * draw(Stream.TIMES, jax.random.normal, layout.count))[:, chunk]
  sigma = s.finished_noise * draw(Stream.FINISHED_SIGMA, jax.random.uniform, 1)
  noise_FNP = draw(Stream.NOISE, jax.random.normal, *clean_FNP.shape[1:])
  finished_FMP = finished_t = None
  if M:
    noise_FMP = draw(Stream.FINISHED_NOISE, jax.random.normal, M, clean_FNP.shape[2])
    finished_FMP = interpolate(clean_FNP[:, :M], noise_FMP, 1 - sigma[..., None])
    finished_t = jnp.repeat(1 - sigma, layout.finished_groups, axis=1)

  keep_tokens = draw(Stream.DROPPED_TOKENS, jax.random.uniform) >= s.drop_tokens
  keep_text = draw(Stream.DROPPED_TEXT, jax.random.uniform) >= s.drop_text
  states, exists = (x.reshape(B * I, *x.shape[2:]) for x in text)
  features_FhwZ = features_BIhwZ.reshape(B * I, *features_BIhwZ.shape[2:])
  variables = {"params": params["decoder"]}
  conditions = features_FhwZ, states, exists, keep_tokens, keep_text
  memory = omni.decoder.apply(variables, *conditions, layout, method="remember")
  spans = (0, layout.finished_groups), (0, layout.groups)
  mask = AttentionMask(DoubledChunks(layout, s.context_rows))

  def predict(decoder, noisy_FNP: Array, t_FR: Array, gap_FR: Array | None = None) -> Array:
    """x̂ (F, N, P)."""
    if M:
      noisy_FNP, t_FR = jnp.concatenate([finished_FMP, noisy_FNP], axis=1), jnp.concatenate([finished_t, t_FR], axis=1)
      gap_FR = None if gap_FR is None else jnp.concatenate([jnp.zeros_like(finished_t), gap_FR], axis=1)
    return decoder.apply(variables, noisy_FNP, spans, t_FR, memory, mask, layout, gap=gap_FR)[0][:, M:]

  of_patches = functools.partial(_of_patches, layout=layout)
  if few_steps:
    ends = draw(Stream.INTERVALS, jax.random.uniform, 2, layout.count)[..., chunk]
    is_far = draw(Stream.FEW_STEPS, jax.random.uniform, 1) < few_steps
    t_FR, to_FR = jnp.where(is_far, jnp.min(ends, axis=1), t_FR), jnp.where(is_far, jnp.max(ends, axis=1), t_FR)
    # Splash attention and what gathers by hand have no forward mode.
    plain = dataclasses.replace(omni.kernels, attention=dot_product_attention)
    decoder = dataclasses.replace(omni, kernels=plain).decoder
    predicts = functools.partial(predict, decoder)
    error, predicted_FNP = mean_velocity_error(predicts, clean_FNP, noise_FNP, t_FR, to_FR, of_patches)
    # Each time by its own error, as MeanFlow has it: slopes near the end are steep, and would drown all else.
    error_FR = jnp.mean(error.reshape(*t_FR.shape, -1), axis=-1)
    found = [jnp.mean(error_FR / (jax.lax.stop_gradient(error_FR) + LEAST_ERROR), axis=1)]
  else:
    at = of_patches(t_FR)
    predicted_FNP = predict(omni.decoder, interpolate(clean_FNP, noise_FNP, at), t_FR)
    found = [jnp.mean(flow_error(predicted_FNP, clean_FNP, at), axis=(1, 2))]
  if lpips is not None:
    whole = lambda x_FNP: unpatchify(layout.raster(x_FNP), s.patch_size, layout.columns)  # noqa: E731
    found.append(late_distances(lpips, predicted_FNP, clean_FNP, of_patches(t_FR), whole))
  return tuple(values_F.reshape(B, I) for values_F in found)


def mean_velocity_error(predict, clean_FNP: Array, noise_FNP: Array, t_FR: Array, to_FR: Array, of_patches):
  """Error (F, N, P) of the mean velocity u from times t to later ones, as a velocity at t: that of flow matching where
  both are the same. And what was predicted, x̂ (F, N, P).

  MeanFlow (Geng et al. 2025, arXiv 2505.13447): (r − t)·u is the path from t to r, so that u = v + (r − t)·du/dt along
  it; hence u − (r − t)·du/dt is compared with the velocity that flow matching learns. The slope du/dt is taken where
  the network itself goes, not where one image's noise does (Geng et al. 2025, 2512.02012), and is no target that a
  gradient moves. The network predicts pixels, u = (x̂ − x_t)/(1 − t) (Lu et al. 2026, 2601.22158).

  Args:
    predict: (noisy (F, N, P), t (F, R), r − t (F, R)) → x̂.
    of_patches: (F, R) → (F, N, 1).
  """
  at, gap_FN1 = of_patches(t_FR), of_patches(to_FR - t_FR)
  noisy_FNP = interpolate(clean_FNP, noise_FNP, at)

  def mean_velocity(noisy_FNP, t_FR, to_FR):
    return velocity(predict(noisy_FNP, t_FR, to_FR - t_FR), noisy_FNP, of_patches(t_FR))

  along = jax.lax.stop_gradient(mean_velocity(noisy_FNP, t_FR, t_FR))
  tangents = along, jnp.ones_like(t_FR), jnp.zeros_like(to_FR)
  mean, slope = jax.jvp(mean_velocity, (noisy_FNP, t_FR, to_FR), tangents)
  at_t = mean - gap_FN1 * jax.lax.stop_gradient(slope)
  predicted_FNP = noisy_FNP + mean * jnp.maximum(1 - at, SHORTEST_TIME_LEFT)
  return jnp.square(at_t - velocity(clean_FNP, noisy_FNP, at)), predicted_FNP


def _of_patches(of_groups_FR: Array, layout: ChunkLayout) -> Array:
  return jnp.repeat(of_groups_FR, layout.group, axis=1)[..., None]
