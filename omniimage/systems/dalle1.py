"""Tokens, and nothing that paints: a transformer writes visual tokens, the image tokenizer's own decoder renders them.

DALL·E 1 (Ramesh et al. 2021, arXiv 2102.12092), VQGAN (Esser et al. 2021, 2012.09841) and LlamaGen (Sun et al. 2024,
2406.06525). All of it is ours without the painter: its tokenizer, of FSQ or of a codebook that is learnt as theirs is
(`omniimage.models.quantizers`), and no adversarial loss.
"""

from collections.abc import Collection, Sequence
from typing import ClassVar

import numpy as np
from jax import Array

from omniimage.data.batches import Batch
from omniimage.data.text import TextTokenizer
from omniimage.distributed.spread import Spread
from omniimage.sampling.tokens import TokenDrawer
from omniimage.settings import require
from omniimage.systems.omni import PRIOR_RULES, TOKENIZER_RULES, OmniSystem
from omniimage.systems.omni_painting import OF_PAINTING
from omniimage.systems.system import Params, Part, Totals


class Dalle1System(OmniSystem):
  parts: ClassVar = {
    "tokenizer": Part(TOKENIZER_RULES, ("pixel",)),
    "prior": Part(PRIOR_RULES, ("text", "image"), ("prior.input_images",)),
  }
  terms = ("pixel", "pixel_lpips", "entropy", "text", "image")
  identity = ("tokenizer", "prior", "decoder.pixels_per_token", "data.image_size")
  abilities = frozenset({"codes"})

  def init(self, key: Array) -> Params:
    params = super().init(key)
    return {part: params[part] for part in self.parts}

  def sums(self, batch: Batch) -> Totals:
    sums = super().sums(batch)
    return {term: sums[term] for term in self.terms}

  def shared_draws(self, key: Array) -> tuple:
    return ()

  def generator(self, params: Params, text_tokenizer: TextTokenizer, spread: Spread | None = None) -> TokenDrawer:
    return TokenDrawer(self.settings, params, text_tokenizer, spread=spread)

  def columns(
    self, generator: TokenDrawer, trained: Collection[str], prompts: Sequence[str], images: np.ndarray, seed: int
  ) -> dict[str, Array]:
    """The tokenizer's reconstruction, and sampled tokens as it renders them."""
    columns = {}
    if "tokenizer" in trained:
      columns["reconstruction"] = generator.reconstruct(images)
    if set(self.parts) <= set(trained):
      columns["sampled tokens"] = generator(list(prompts), seed).images
    return columns

  def check(self, stage: str):
    for name in OF_PAINTING:
      share = getattr(self.settings.stages[stage], name)
      require(not share, f"config.stages.{stage}: {name}={share} is for painting, and nothing paints here: set it to 0")
    super().check(stage)
