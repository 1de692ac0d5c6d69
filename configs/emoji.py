"""Emoji: 1,852 real images at 64×64 pixels, captions from their labels and tags; on two CPU cores.

  python -m launch.train --config=configs/emoji.py --workdir=runs/emoji

Variants: `configs/emoji.py:vq` and `configs/emoji.py:ibq` have codebooks that are learnt, in place of FSQ's.
"""

from ml_collections import ConfigDict

from . import scenes

CODEBOOKS = {"vq": 0.0, "ibq": 0.05}  # weight of the entropy penalty: LlamaGen's, and that of IBQ's paper
VARIANTS = ("", *CODEBOOKS)


def get_config(variant: str = "") -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"configs/emoji.py has the variants {', '.join(CODEBOOKS)}, not {variant!r}")
  config = scenes.get_config()

  config.data.source = ConfigDict(dict(name="emoji"))
  config.data.image_size = 64  # pixels: 8×8 visual tokens
  config.data.sequence_length = 192  # tokens a row: two emoji with their captions
  config.data.images_per_row = 2

  config.tokenizer.width = 192
  config.tokenizer.heads = 6
  config.tokenizer.mlp_width = 384
  config.tokenizer.levels = (7, 5, 5, 5, 5)  # 4,375 codes, the FSQ paper's levels for 2^12
  config.prior.width = 256
  config.prior.heads = 4
  config.prior.head_width = 64
  config.prior.mlp_width = 640
  config.decoder.chunk_rows = (2,)  # four stripes of 16 pixels
  config.decoder.text_length = 32

  config.stages.tokenizer.update(dict(steps=2000, rows=8))
  config.stages.prior.update(dict(steps=2500, rows=8))
  config.stages.decoder.update(dict(steps=2200, rows=8))
  config.stages.joint.update(dict(steps=50, rows=8, rates=dict(tokenizer=1e-6, prior=2e-5)))
  config.run.checkpoint_every = 500  # steps
  config.run.sample_every = 500
  if variant:
    learn_codebook(config, variant)
  return config


def learn_codebook(config: ConfigDict, quantizer: str):
  """A codebook that is learnt, in place of FSQ's."""
  del config.tokenizer.levels
  config.tokenizer.quantizer = quantizer  # vq: the nearest code learns; ibq: all do
  config.tokenizer.codes = 4096
  config.tokenizer.code_width = 8  # channels
  config.tokenizer.beta = 0.25  # of the quantizer's loss, as in the papers
  config.stages.tokenizer.weights.entropy = CODEBOOKS[quantizer]  # of the codebook's use
