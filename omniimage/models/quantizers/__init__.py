"""Quantizers: from what the tokenizer's encoder gives to codes, and from codes to features. A file and a row each."""

from collections.abc import Callable

from omniimage.models.quantizers.fsq import FSQ
from omniimage.models.quantizers.ibq import IBQ
from omniimage.models.quantizers.interface import Quantized, Quantizer
from omniimage.models.quantizers.latents import Latents
from omniimage.models.quantizers.vq import VQ
from omniimage.settings import AutoencoderSettings, CodebookSettings, TokenizerSettings

__all__ = ["LEARNT", "QUANTIZERS", "Quantized", "Quantizer", "quantizer_for"]

LEARNT: dict[str, Callable[[int, int, float], Quantizer]] = {"vq": VQ, "ibq": IBQ}  # by `tokenizer.quantizer`
# By the type of the tokenizer's settings, which say what their quantizer needs to know.
QUANTIZERS: dict[type, Callable[..., Quantizer]] = {
  TokenizerSettings: lambda settings: FSQ(settings.levels),
  CodebookSettings: lambda settings: LEARNT[settings.quantizer](settings.codes, settings.channels, settings.beta),
  AutoencoderSettings: lambda settings: Latents(settings.channels),
}


def quantizer_for(settings: TokenizerSettings | CodebookSettings | AutoencoderSettings) -> Quantizer:
  return QUANTIZERS[type(settings)](settings)
