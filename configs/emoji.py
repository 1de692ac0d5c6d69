"""Emoji: 1,852 real images at 64×64 pixels, captions from their labels and tags; on two CPU cores.

python -m launch.train --config=configs/emoji.py --workdir=runs/emoji
"""

from ml_collections import ConfigDict

from configs import scenes
from configs.common import stage


def get_config(variant: str = "") -> ConfigDict:
  if variant:
    raise ValueError(f"configs/emoji.py has no variants, got {variant!r}")
  config = scenes.get_config()

  config.data.source = ConfigDict(dict(name="emoji"))
  config.data.image_size = 64  # pixels: 8×8 visual tokens
  config.data.sequence_length = 192  # tokens a row: two emoji with their captions
  config.data.images_per_row = 2

  config.tokenizer.width = 192
  config.tokenizer.heads = 6
  config.tokenizer.mlp_width = 384
  config.tokenizer.levels = (7, 5, 5, 5, 5)  # 4,375 codes, the FSQ paper's levels for 2^12
  config.prior.width = 192
  config.prior.heads = 6
  config.prior.mlp_width = 512
  config.decoder.chunk_rows = (2,)  # four stripes of 16 pixels
  config.decoder.text_length = 32
  config.sampling.chunk_rows = 2

  config.stages.tokenizer = stage(
    weights=dict(pixel=1.0), steps=800, rows=16, warmup_steps=50, tokenizer_rate=1e-3
  )  # fmt: skip
  config.stages.prior = stage(weights=dict(image=1.0), steps=1000, rows=16, warmup_steps=50, prior_rate=1e-3)
  config.stages.decoder = stage(weights=dict(diffusion=1.0), steps=300, rows=16, warmup_steps=50, decoder_rate=1e-3)
  config.stages.joint.update(dict(steps=20, rows=16))
  return config
