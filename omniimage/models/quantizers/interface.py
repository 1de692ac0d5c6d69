"""What a quantizer is. Axes: Z channels, C codes of the codebook."""

from typing import NamedTuple, Protocol

import jax
from jax import Array

EXACT = jax.lax.Precision.HIGHEST  # of a search: which code is the nearest must not hang on how a device rounds


class Quantized(NamedTuple):
  """What the encoder's output became.

  Attributes:
    features: (..., Z) float32, through which the gradient of what is made of them reaches the encoder.
    codes: (...) int32; None where features are not of a codebook.
    auxiliary: (...) float32, a loss of each code beside what its features are used for, such as the commitment of
      VQ-VAE; None where there is none, and then nothing is to be added.
    affinity: (..., C) float32, how near each code of a learnt codebook is, of which the entropy penalty is made; None
      where no codebook is learnt. What does not ask for it does not compute it, once it is compiled.
  """

  features: Array
  codes: Array | None
  auxiliary: Array | None
  affinity: Array | None = None


class Quantizer(Protocol):
  """A Flax module. The parameters that it makes when it is called, if any, are the tokenizer's, under `quantizer`.

  Attributes:
    codes: C.
    channels: Z.
  """

  codes: int
  channels: int

  def __call__(self, z: Array) -> Quantized:
    """Unbounded (..., Z) → features, codes and auxiliary loss."""

  def features(self, codes: Array) -> Array:
    """Codes (...) → features (..., Z), those that the call gave with them."""
