"""Quantizers: from what the tokenizer's encoder gives to codes, and from codes to features. A file and a row each."""

from collections.abc import Callable

from omniimage.models.quantizers.fsq import FSQ
from omniimage.models.quantizers.interface import Quantized, Quantizer
from omniimage.settings import TokenizerSettings

__all__ = ["QUANTIZERS", "Quantized", "Quantizer", "quantizer_for"]

# By the type of the tokenizer's settings, which say what their quantizer needs to know.
QUANTIZERS: dict[type[TokenizerSettings], Callable[[TokenizerSettings], Quantizer]] = {
  TokenizerSettings: lambda settings: FSQ(settings.levels),
}


def quantizer_for(settings: TokenizerSettings) -> Quantizer:
  return QUANTIZERS[type(settings)](settings)
