"""What the forward pass of a layer leaves for its backward pass (rematerialization, Chen et al. 2016).

A layer tags what it computes by name. A policy saves the arrays of some names and, always, the layer's input; what the
backward pass needs beside these is computed again. A name is the same array in every part and on every platform:

  attention         what attention gives, self- and cross-attention, before the output projection; splash attention and
                    cuDNN's kernel add the log-sum-exp of their softmax
  residual          the sum of a layer's input and attention, so that the output projection is not computed again; in
                    the prior alone, whose layers are the largest
  gate, up          the two products into a gated MLP
  query, key, value of self- and cross-attention, rotated
"""

import itertools

import jax
from jax import Array
from jax.ad_checkpoint import checkpoint_name

ATTENTION = "attention"  # a name of its own, for the splash kernel tags within itself
CUDNN = "dot_product_attention_fwd_wrapper"  # the kernel's primitive in JAX, which tags nothing within itself

# Policies, from least to most saved, and the names that each adds to the one before.
_ADDED = {
  "full": (),
  "attention": (ATTENTION,),
  "mlp": ("residual", "gate", "up"),
  "projections": ("query", "key", "value"),
}
SAVED = dict(zip(_ADDED, itertools.accumulate(_ADDED.values())))
NAMES = SAVED["projections"]
OFFLOADED = ("residual", *_ADDED["projections"])  # what "offload" keeps in the host's memory, beside attention saved


def tag(x: Array, name: str) -> Array:
  """x under one of NAMES, for the policies; else ValueError, for no policy would ever save it."""
  if name not in NAMES:
    raise ValueError(f"no policy knows the name {name!r}; add it to one, beside {', '.join(NAMES)}")
  return checkpoint_name(x, name)


def remat_policy(name: str):
  """The policy of `jax.checkpoint` that saves what `SAVED` names, or offloads what `OFFLOADED` does."""
  if name == "full":
    return jax.checkpoint_policies.nothing_saveable
  by_name = _offloading() if name == "offload" else jax.checkpoint_policies.save_only_these_names(*SAVED[name])

  def policy(primitive, *given, **params):
    return primitive.name == CUDNN or by_name(primitive, *given, **params)

  return policy


def _offloading():
  return jax.checkpoint_policies.save_and_offload_only_these_names(
    names_which_can_be_saved=SAVED["attention"],
    names_which_can_be_offloaded=OFFLOADED,
    offload_src="device",
    offload_dst="pinned_host",
  )
