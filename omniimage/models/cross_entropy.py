"""Cross-entropy without an array of logits.

Axes: B rows, L positions, D width, V ids.
"""

import functools

import jax
import jax.numpy as jnp

CHUNK = 512  # positions whose logits exist at one time


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def cross_entropy(hidden, kernel, targets, weights, ids: int, z_weight: float, chunk: int = CHUNK):
  """Weighted sum of next-token cross-entropies, plus z_weight · log² Z (Chowdhery et al. 2022).

  The sequence is taken `chunk` positions at a time, so no (B, L, V) array ever exists; under differentiation the
  gradients of the hidden states and of the head are formed in the forward pass, while a chunk's logits are at hand.

  Args:
    hidden: (B, L, D), the state that predicts targets[:, l].
    kernel: (D, padded V), the head.
    targets: (B, L) int32 in [0, ids).
    weights: (B, L) float32; not differentiated.
    ids: columns of the head that are real; padding takes no probability.

  Returns:
    total, nll: the weighted sums with and without the z term, in nats. Only `total` is differentiated.
  """
  chunks = _chunks(chunk, hidden, targets, weights)
  sums, _ = jax.lax.scan(lambda s, c: (_add(s, _chunk_loss(kernel, *c, ids, z_weight)[:2]), None), (0.0, 0.0), chunks)
  return sums


def _cross_entropy_forward(hidden, kernel, targets, weights, ids, z_weight, chunk):
  def step(carry, chunk):
    sums, d_kernel = carry
    h, _, w = chunk
    total, nll, (logits, log_z, hit) = _chunk_loss(kernel, *chunk, ids, z_weight)
    log_z = log_z[..., None]
    d_logits = w[..., None] * (jnp.exp(logits - log_z) * (1 + 2 * z_weight * log_z) - hit)
    d_logits = d_logits.astype(h.dtype)
    d_hidden = jnp.matmul(d_logits, kernel.T.astype(h.dtype))
    d_kernel += jnp.einsum("BLD,BLV->DV", h, d_logits, preferred_element_type=jnp.float32)
    return (_add(sums, (total, nll)), d_kernel), d_hidden

  start = ((0.0, 0.0), jnp.zeros(kernel.shape, jnp.float32))
  (sums, d_kernel), d_hidden = jax.lax.scan(step, start, _chunks(chunk, hidden, targets, weights))
  d_hidden = jnp.moveaxis(d_hidden, 0, 2).reshape(hidden.shape[0], -1, hidden.shape[2])[:, : hidden.shape[1]]
  return sums, (d_hidden, d_kernel.astype(kernel.dtype))


def _cross_entropy_backward(ids, z_weight, chunk, residuals, cotangents):
  d_hidden, d_kernel = residuals
  scale, _ = cotangents
  return (scale * d_hidden).astype(d_hidden.dtype), (scale * d_kernel).astype(d_kernel.dtype), None, None


cross_entropy.defvjp(_cross_entropy_forward, _cross_entropy_backward)


def _chunks(chunk: int, hidden, targets, weights):
  """(B, L, …) arrays as (chunks, B, positions, …), padded at the end with weight zero if so many chunks do not divide
  them: libtpu 0.0.50 cannot compile much of it.

  Chunk c holds positions c, c + count, c + 2·count, …: some of every shard of a divided sequence, so that all devices
  work on each.
  """
  B, L = targets.shape
  fewest = -(-L // chunk)
  count = next((count for count in range(fewest, 2 * fewest) if L % count == 0), fewest)
  chunk = -(-L // count)
  padding = count * chunk - L

  def split(x):
    x = jnp.pad(x, ((0, 0), (0, padding)) + ((0, 0),) * (x.ndim - 2))
    return jnp.moveaxis(x.reshape(B, chunk, count, *x.shape[2:]), 2, 0)

  return split(hidden), split(targets), split(weights)


def _chunk_loss(kernel, hidden, targets, weights, ids: int, z_weight: float):
  logits = jnp.matmul(hidden, kernel.astype(hidden.dtype), preferred_element_type=jnp.float32)
  column = jnp.arange(kernel.shape[1])
  logits = jnp.where(column < ids, logits, -jnp.inf)
  log_z = jax.nn.logsumexp(logits, axis=-1)
  hit = targets[..., None] == column
  nll = log_z - jnp.sum(jnp.where(hit, logits, 0), axis=-1)
  total = jnp.sum(weights * (nll + z_weight * jnp.square(log_z)))
  return total, jnp.sum(weights * nll), (logits, log_z, hit)


def _add(a, b):
  return tuple(x + y for x, y in zip(a, b))
