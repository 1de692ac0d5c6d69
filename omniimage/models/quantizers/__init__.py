"""Quantizers: from what the tokenizer's encoder gives to codes, and from codes to features. A file and a row each."""

from collections.abc import Callable

from omniimage.models.quantizers.fsq import FSQ
from omniimage.models.quantizers.interface import Quantized, Quantizer
from omniimage.models.quantizers.latents import Latents
from omniimage.settings import AutoencoderSettings, TokenizerSettings

__all__ = ["QUANTIZERS", "Quantized", "Quantizer", "quantizer_for"]

# By the type of the tokenizer's settings, which say what their quantizer needs to know.
QUANTIZERS: dict[type, Callable[..., Quantizer]] = {
  TokenizerSettings: lambda settings: FSQ(settings.levels),
  AutoencoderSettings: lambda settings: Latents(settings.channels),
}


def quantizer_for(settings: TokenizerSettings | AutoencoderSettings) -> Quantizer:
  return QUANTIZERS[type(settings)](settings)
