"""Your own pictures, from a folder that `launch.prepare` has made of them.

  python -m launch.prepare --source=PICTURES --out=DIR                                   # docs/own_images.md
  python -m launch.train --config=configs/images.py:small --config.data.source.path=DIR --workdir=runs/mine

| variant | pictures | made for |
| --- | --- | --- |
| tiny | 32×32 | a notebook, tests: minutes on two CPU cores, of some dozen pictures |
| small | 64×64 | two CPU cores, some thousand pictures: an hour and a half |
| medium | 128×128, landscape and portrait too | a GPU, or a night on a CPU |
| 300m, 1b, 7b | 256×256, 1024×1024 | TPU pods: the sizes of configs/omni.py |
"""

from ml_collections import ConfigDict

from . import omni, scenes
from .common import stage

POD_SIZES = ("300m", "1b", "7b")
VARIANTS = ("tiny", "small", "medium", *POD_SIZES)


def get_config(variant: str = "small") -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"configs/images.py has the variants {', '.join(VARIANTS)}, not {variant!r}")
  config = omni.get_config(variant) if variant in POD_SIZES else scenes.get_config()
  config.data.source = own_pictures()
  if variant in ("small", "medium"):
    small(config)
  if variant == "medium":
    medium(config)
  if variant == "tiny":
    tiny(config)
  return config


def own_pictures() -> ConfigDict:
  source = ConfigDict(dict(name="records"))
  source.path = ""  # a folder that launch.prepare has made
  source.templates = ("{}",)  # what a caption is put into, as "a photo of {}"; one is drawn each time
  source.fit = "crop"  # how a picture fills a size: crop its middle, stretch it, or pad it
  source.background = (255, 255, 255)  # red, green, blue: behind what is transparent, and around what is padded
  return source


def small(config: ConfigDict):
  """Some thousand pictures at 64 pixels: 8×8 codes each."""
  config.data.image_size = 64  # pixels
  config.data.sequence_length = 264  # tokens a row: three pictures with captions of some 16 tokens
  config.data.images_per_row = 3

  config.tokenizer.width = 192
  config.tokenizer.heads = 6
  config.tokenizer.mlp_width = 384
  config.tokenizer.levels = (7, 5, 5, 5, 5)  # 4,375 codes, the FSQ paper's levels for 2^12
  config.prior.width = 256
  config.prior.heads = 4
  config.prior.head_width = 64
  config.prior.mlp_width = 640
  config.decoder.chunk_rows = (2,)  # four stripes of 16 pixels
  config.decoder.text_length = 48

  shared = dict(rows=6, warmup_steps=50)
  config.stages.tokenizer = stage(weights=dict(pixel=1.0), rates=dict(tokenizer=2e-3), steps=2500, **shared)
  config.stages.prior = stage(weights=dict(image=1.0), rates=dict(prior=2e-3), steps=5000, **shared)
  config.stages.decoder = stage(weights=dict(diffusion=1.0), rates=dict(decoder=1e-3), steps=2000, **shared)
  config.stages.joint.update(dict(steps=50, rows=6, rates=dict(tokenizer=1e-6, prior=2e-5)))
  config.run.checkpoint_every = 500  # steps
  config.run.sample_every = 500


def medium(config: ConfigDict):
  """Pictures of about 128×128 pixels, upright, square and lying: some 256 codes each."""
  config.compute_dtype = "auto"  # bfloat16 on a GPU that has it
  config.data.image_size = 128  # pixels along the sides of a square; the others have about its area
  config.data.aspect_ratios = ("1:1", "4:3", "3:4")
  config.data.sequence_length = 640  # tokens a row: two pictures with captions of some 50 tokens
  config.data.images_per_row = 2
  for part in (config.tokenizer, config.prior, config.decoder):
    part.width, part.heads, part.mlp_width = 384, 6, 1024
  config.tokenizer.levels = (8, 8, 8, 6, 5)  # 15,360 codes, the FSQ paper's levels for 2^14
  config.prior.depth = config.decoder.depth = 8
  config.decoder.chunk_rows = (4,)  # stripes of 32 pixels
  config.decoder.text_length = 96
  for name, steps in (("tokenizer", 10_000), ("prior", 20_000), ("decoder", 10_000), ("joint", 500)):
    config.stages[name].update(dict(steps=steps, rows=16))


def tiny(config: ConfigDict):
  """Some dozen pictures at 32 pixels, learnt by heart."""
  scenes.shrink(config)
  config.data.sequence_length = 128  # tokens a row: three pictures with their captions
  config.data.images_per_row = 3
