"""Muon (Jordan et al. 2024) for the matrices of the layers, AdamW (Loshchilov & Hutter 2019) for all else; warm-up and
cosine decay; one optimizer for each part that moves, clipped by itself.

A matrix that Muon moves takes updates whose singular values are all about one. Their size is set so that the root mean
square of an element's update is a fixed share of the learning rate (as in Liu et al. 2025), so one rate serves both.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers

from omniimage.distributed.sharding import Rules
from omniimage.settings import OptimizerSettings, StageSettings
from omniimage.training.muon import Laid, scale_by_muon_on_mesh

# A codebook too: its codes are places in the encoder's space, and one that is not chosen would fade to its origin.
UNDECAYED = ("scale", "bias", "modulation", "null_tokens", "null_text", "codebook")
# Dimensions of one layer's kernels that are summed over, and that come out. A stack of layers has one in front.
KERNELS = {
  "query": ((0,), (1, 2)),
  "key": ((0,), (1, 2)),
  "value": ((0,), (1, 2)),
  "out": ((0, 1), (2,)),
  "gate": ((0,), (1,)),
  "up": ((0,), (1,)),
  "down": ((0,), (1,)),
}


def make_optimizer(
  settings: OptimizerSettings, stage: StageSettings, rules: Mapping[str, Rules] | None = None, dtype: Any = jnp.float32
) -> optax.GradientTransformation:
  """Updates {part: gradients} of the parts that move in a stage; its state is {part: state}.

  `update` takes, beside the usual, `stage_step`: the updates that the stage has made, skipped ones included. The rate
  follows it and no count of the optimizer's own, so that the rate, its log and the stage's end cannot part.

  Args:
    rules: how the parts lie on the mesh that is set when it updates; None: on one device.
    dtype: in which Muon's matrices are exchanged and orthogonalized where there are rules.
  """
  optimizers = {part: _optimizer(settings, rules and Laid(rules[part], part, dtype)) for part in stage.moves}
  rates = {part: learning_rate(settings, stage, stage.rates[part]) for part in stage.moves}

  def init(params):
    return {part: optimizer.init(params[part]) for part, optimizer in optimizers.items()}

  def update(grads, state, params, *, stage_step):
    updates, following = {}, {}
    for part, optimizer in optimizers.items():
      scaled, following[part] = optimizer.update(grads[part], state[part], params[part])
      updates[part] = optax.tree.scale(-rates[part](stage_step), scaled)
    return updates, following

  return optax.GradientTransformationExtraArgs(init, update)


def learning_rate(settings: OptimizerSettings, stage: StageSettings, peak: float) -> optax.Schedule:
  """A line up to the peak, which the update after the warm-up has, and a cosine down. No update has a rate of zero."""
  return optax.warmup_cosine_decay_schedule(
    init_value=peak / (stage.warmup_steps + 1),
    peak_value=peak,
    warmup_steps=stage.warmup_steps,
    decay_steps=max(stage.steps, stage.warmup_steps + 1),
    end_value=peak * settings.final_rate,
  )


def _optimizer(settings: OptimizerSettings, laid: Laid | None) -> optax.GradientTransformation:
  """Of one part, in learning rates, uphill."""
  scaled = optax.scale_by_adam(settings.b1, settings.b2)
  if settings.muon_rms:
    scaled = optax.partition({"adam": scaled, "muon": _muon(settings.muon_rms, laid)}, _labels)
  return optax.chain(
    optax.clip_by_global_norm(settings.clip_norm),
    scaled,
    optax.add_decayed_weights(settings.weight_decay, mask=_decayed),
  )


def _muon(rms: float, laid: Laid | None) -> optax.GradientTransformation:
  """Orthogonalized momentum, scaled to a root mean square of `rms`."""

  def scale(updates, params):
    # The orthogonal factor of m × n has min(m, n) singular values of about one.
    return jax.tree.map(
      lambda u, d: u * rms * math.sqrt(max(_size(u, d.reduction_axis), _size(u, d.output_axis))),
      updates,
      _dimension_numbers(updates),
    )

  return optax.chain(scale_by_muon_on_mesh(_dimension_numbers, laid), optax.stateless(scale))


def _dimension_numbers(params):
  def numbers(path, leaf):
    summed, out = KERNELS[path[-2].key]
    stacked = leaf.ndim - len(summed) - len(out)
    return MuonDimensionNumbers(tuple(i + stacked for i in summed), tuple(i + stacked for i in out))

  return jax.tree.map_with_path(numbers, params)


def _size(x: jax.Array, axes: tuple[int, ...]) -> int:
  return math.prod(x.shape[axis] for axis in axes)


def _labels(params):
  """Muon for the matrices of the layers, Adam for tables, projections from and to the data, norms and biases."""

  def label(path, _):
    names = [key.key for key in path]
    return "muon" if "layers" in names and names[-1] == "kernel" and names[-2] in KERNELS else "adam"

  return jax.tree.map_with_path(label, params)


def _decayed(params):
  """True for matrices and the tables of embeddings. By name: a stack of norm scales has two dimensions as well."""
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in UNDECAYED, params)
