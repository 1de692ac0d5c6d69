"""Sizes for TPU pods: 300m and 1b at 256×256 pixels, 7b at 1024×1024, and `peer`, the prior alone on text.

  python -m launch.plan --config=configs/omni.py:1b --topology=v5e:16x16 --out=plan.json
  launch/tpu/train.sh --config=configs/omni.py:1b …                      # docs/tpu.md

Millions of parameters, from `launch.plan`:

| variant | image | tokenizer | prior | decoder | all | begins on |
| --- | --- | --- | --- | --- | --- | --- |
| 300m | 256² | 42 | 152 | 102 | 296 | v5e:2x4 |
| 1b | 256² | 86 | 729 | 252 | 1,067 | v5e:16x16 |
| 7b | 1024² | 310 | 4,413 | 2,202 | 6,924 | v5p:8x8x8 |
| peer | text | | 1,297 | | | v5e:16x16 |

They read the scenes until other data is named. Heads are 128 wide, the width of a TPU's vector unit.
"""

from ml_collections import ConfigDict

from . import scenes
from .common import stage

HEAD_WIDTH = 128


def get_config(variant: str = "1b") -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"configs/omni.py has the variants {', '.join(VARIANTS)}, not {variant!r}")
  config = scenes.get_config()
  config.compute_dtype = "bfloat16"
  config.scan_layers = True
  config.gather_params = "hand"  # measured: docs/results.md
  config.optimizer.muon_rms = 0.0  # what Muon learns at these sizes is not known; its step costs 1.06 of AdamW's
  config.optimizer.ema_decay = 0.9999
  config.mesh.fsdp = 16  # longer rings cut the matrices into slices thinner than a tile
  config.sampling.temperature = 1.0
  config.tokenizer.levels = (8, 8, 8, 6, 5)  # 15,360 codes, the FSQ paper's levels for 2^14
  config.faults.end_hanging_after = 600  # seconds: whoever runs a pod starts it again, and it costs while it hangs
  config.run.checkpoint_every = 1000  # steps
  config.run.sample_every = 0  # at the end of a stage alone: every device gathers all parameters for a sheet
  VARIANTS[variant](config)
  return config


def small(config: ConfigDict):
  """300m: one host of eight v5e."""
  images_of_256(config)
  transformer(config.tokenizer, width=512, mlp_width=1536)
  config.tokenizer.encoder_depth = config.tokenizer.decoder_depth = 6
  transformer(config.prior, width=1024, mlp_width=2816, kv_heads=4, depth=10)
  transformer(config.decoder, width=768, mlp_width=2048, kv_heads=2, depth=12)
  config.mesh.fsdp = 8
  config.remat = "projections"
  stages(config, rows=16, prior_rate=4e-4)


def medium(config: ConfigDict):
  """1b: a slice of 256 v5e, 16 images a chip."""
  images_of_256(config)
  transformer(config.tokenizer, width=768, mlp_width=2048)
  config.tokenizer.encoder_depth = config.tokenizer.decoder_depth = 6
  transformer(config.prior, width=2048, mlp_width=5632, kv_heads=8, depth=14)
  transformer(config.decoder, width=1024, mlp_width=2816, kv_heads=4, depth=16)
  config.remat = "mlp"
  stages(config, rows=1024, prior_rate=3e-4)


def large(config: ConfigDict):
  """7b: 512 v5p, or two slices of 256 v5e."""
  config.data.image_size = 1024  # pixels
  config.data.sequence_length = 4608  # tokens a row: 64×64 of one image, and a long caption
  config.data.images_per_row = 1
  config.tokenizer.patch_size = config.decoder.patch_size = config.decoder.pixels_per_token = 16
  config.decoder.chunk_rows = (16,)  # patch rows: four stripes
  config.decoder.text_length = 256
  transformer(config.tokenizer, width=1024, mlp_width=2816)
  config.tokenizer.encoder_depth = config.tokenizer.decoder_depth = 12
  transformer(config.prior, width=4096, mlp_width=11008, kv_heads=8, depth=24)
  transformer(config.decoder, width=2048, mlp_width=5632, kv_heads=8, depth=36)
  config.prior.text_rows = 4096  # 64 a slice, whole tiles
  config.mesh.fsdp = 64
  config.remat = "attention"
  stages(config, rows=512, prior_rate=2e-4)


def peer(config: ConfigDict):
  """The prior alone on text: Llama 2's block, 1.3 billion parameters. Tokenizer and decoder do nothing."""
  config.data.images_per_row = 0
  config.data.sequence_length = 2048
  config.data.image_size = 32
  config.tokenizer.levels = (2, 2)
  for part in (config.tokenizer, config.decoder):
    part.width, part.heads, part.mlp_width = 64, 2, 128
  config.decoder.kv_heads = config.decoder.depth = 1
  transformer(config.prior, width=2048, mlp_width=5632, kv_heads=16, depth=20)
  config.prior.qk_norm = False
  config.prior.text_rows = 65_536  # with the output head of the same size
  config.remat = "mlp"
  config.schedule = ("prior",)
  config.stages.prior = stage(
    weights=dict(text=1.0), steps=100_000, rows=2048, warmup_steps=1000, rates=dict(prior=3e-4)
  )


VARIANTS = {"300m": small, "1b": medium, "7b": large, "peer": peer}


def images_of_256(config: ConfigDict):
  config.data.image_size = 256  # pixels: 16×16 codes
  config.data.sequence_length = 1280  # tokens a row: four images with captions of some 55 tokens
  config.data.images_per_row = 4
  config.tokenizer.patch_size = config.decoder.patch_size = config.decoder.pixels_per_token = 16
  config.decoder.chunk_rows = (4,)  # patch rows: four stripes
  config.decoder.text_length = 64


def transformer(part: ConfigDict, width: int, mlp_width: int, **changes):
  part.width, part.heads, part.mlp_width = width, width // HEAD_WIDTH, mlp_width
  if "head_width" in part:
    part.head_width = HEAD_WIDTH
  part.update(changes)


def stages(config: ConfigDict, rows: int, prior_rate: float):
  """The four stages, each of so many rows a step."""
  shared = dict(rows=rows, warmup_steps=1000)
  config.stages.tokenizer = stage(weights=dict(pixel=1.0), steps=100_000, rates=dict(tokenizer=1e-4), **shared)
  plans = dict(image=1.0, text=0.1, z=1e-4)
  config.stages.prior = stage(weights=plans, steps=200_000, rates=dict(prior=prior_rate), **shared)
  config.stages.decoder = stage(weights=dict(diffusion=1.0), steps=100_000, rates=dict(decoder=2e-4), **shared)
  config.stages.joint = stage(
    weights=plans | dict(diffusion=1.0, pixel=1.0),
    steps=20_000,
    # The codes are targets: they must hardly move. The prior as at the end of its own stage.
    rates=dict(tokenizer=1e-6, prior=prior_rate / 20, decoder=1e-5),
    sampled_codes=0.25,
    **shared,
  )
