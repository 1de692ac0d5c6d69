"""Systems that draw from a text, to be compared: one to twenty objects on a 5×5 grid, 80×80 pixels; on two CPU cores.

  python -m launch.train --config=configs/systems.py:omni --workdir=runs/omni
  python -m launch.evaluate --workdir=runs/omni --suite=binding

  omni               tokens → transformer → diffusion, chunk by chunk
  dalle1             tokens → transformer → the tokenizer's own decoder
  stable_diffusion   text → latent diffusion over the whole canvas
  pixel_diffusion    text → pixel diffusion over the whole canvas
  unclip             text → the embedding of an image → pixel diffusion over the whole canvas

All see the same records, have as many parameters within 3 %, and take as many training FLOPs (`System.step_flops`)
within 3 %. `configs/systems.py:NAME_tiny` is the same pipeline at a size for notebooks and tests.
"""

from ml_collections import ConfigDict

from . import scenes
from .common import stage

SUFFIX = "_tiny"


def get_config(variant: str = "omni") -> ConfigDict:
  name = variant.removesuffix(SUFFIX)
  if name not in SYSTEMS:
    raise ValueError(
      f"configs/systems.py has the variants {', '.join(SYSTEMS)}, each also with {SUFFIX}, not {variant!r}"
    )
  config = scenes.get_config()
  config.system = name
  config.data.source.update(dict(grid=5, min_objects=1, max_objects=20))
  config.data.image_size = 80  # pixels: 10×10 visual tokens, a cell of the grid is 2×2 of them
  config.data.sequence_length = 456  # tokens a row: a scene of twenty objects and one of one, or two of ten
  config.data.images_per_row = 2
  config.prior.width = 192
  config.prior.depth = 6
  config.prior.heads = 6
  config.prior.mlp_width = 512
  config.decoder.text_length = 226  # a caption of twenty objects
  config.run.checkpoint_every = 500  # steps
  config.run.sample_every = 500
  SYSTEMS[name](config)
  if variant.endswith(SUFFIX):
    shrink(config)
  return config


def omni(config: ConfigDict):
  config.prior.grid_embedding = True
  config.stages.tokenizer.update(dict(steps=1200, rows=8))
  config.stages.prior.update(dict(steps=5000, rows=8))
  config.stages.decoder.update(dict(steps=1000, rows=8))
  config.stages.joint.update(dict(steps=60, rows=8, rates=dict(prior=2e-5)))


def dalle1(config: ConfigDict):
  """What the others spend on painting goes into the transformer."""
  config.prior.grid_embedding = True
  config.prior.width = 288
  config.prior.depth = 8
  config.prior.heads = 9
  config.prior.kv_heads = 3
  config.prior.mlp_width = 648
  config.schedule = ("tokenizer", "prior")
  config.stages = stages(
    ("tokenizer", "prior"),
    tokenizer=dict(weights=dict(pixel=1.0, pixel_lpips=0.0), rates=dict(tokenizer=2e-3), steps=1200),
    prior=dict(weights=dict(image=1.0), rates=dict(prior=2e-3), steps=2700),
  )


def stable_diffusion(config: ConfigDict):
  config.decoder.depth = 5
  del config.tokenizer.levels
  config.tokenizer.channels = 16  # of a latent
  config.tokenizer.noise = 0.3  # largest σ on the latents that the autoencoder's decoder learns to read
  whole_canvas(config)
  config.schedule = ("autoencoder", "diffusion")
  config.stages = stages(
    ("autoencoder", "text_encoder", "denoiser"),
    autoencoder=dict(weights=dict(pixel=1.0, pixel_lpips=0.0), rates=dict(autoencoder=2e-3), steps=1200),
    diffusion=dict(weights=dict(diffusion=1.0), rates=dict(text_encoder=1e-3, denoiser=1e-3), steps=3700),
  )


def pixel_diffusion(config: ConfigDict):
  config.decoder.depth = 5
  config.decoder.mlp_width = 768
  whole_canvas(config)
  config.decoder.time_mean = -0.8  # JiT's: much of an image shows through much noise on its pixels
  config.schedule = ("diffusion",)
  config.stages = stages(
    ("text_encoder", "denoiser"),
    diffusion=dict(
      weights=dict(diffusion=1.0, diffusion_lpips=0.0), rates=dict(text_encoder=1e-3, denoiser=1e-3), steps=3650
    ),
  )


def unclip(config: ConfigDict):
  config.decoder.depth = 3
  config.decoder.mlp_width = 576
  config.prior.depth = 4
  del config.tokenizer.levels
  del config.tokenizer.decoder_depth
  config.tokenizer.encoder_depth = 2
  config.tokenizer.embedding = 128
  config.tokenizer.prior_depth = 1
  whole_canvas(config)
  config.decoder.time_mean = -0.8
  config.sampling.guidance = 2.0  # of the prior
  config.schedule = ("embedder", "diffusion")
  config.stages = stages(
    ("embedder", "text_encoder", "embedding_prior", "denoiser"),
    embedder=dict(weights=dict(contrast=1.0), rates=dict(embedder=1e-3), steps=1500),
    diffusion=dict(
      weights=dict(embedding=1.0, diffusion=1.0, diffusion_lpips=0.0),
      rates=dict(text_encoder=1e-3, embedding_prior=1e-3, denoiser=1e-3),
      steps=4860,
    ),
  )


def whole_canvas(config: ConfigDict):
  """Painted at once."""
  config.decoder.chunk_rows = (0,)
  config.data.drop_text = 0.0  # decoder.drop_text does it
  config.sampling.text_guidance = 2.0


def stages(parts: tuple[str, ...], **rows: dict) -> ConfigDict:
  """Stages of a system of these parts."""
  made = ConfigDict()
  for name, own in rows.items():
    made[name] = stage(rows=8, warmup_steps=50)
    made[name].weights, made[name].rates = ConfigDict(own["weights"]), ConfigDict(dict.fromkeys(parts, 0.0))
    made[name].rates.update(own["rates"])
    made[name].steps = own["steps"]
  return made


def shrink(config: ConfigDict):
  """One object on a 2×2 grid, 16 pixels, and a model of some hundred thousand parameters."""
  config.data.source.update(dict(grid=2, max_objects=1))
  config.data.image_size = 16
  config.data.sequence_length = 64
  config.decoder.text_length = 24
  scenes.narrow(config)
  for row in config.stages.values():
    row.rows, row.warmup_steps = 8, 5


SYSTEMS = {
  "omni": omni,
  "dalle1": dalle1,
  "stable_diffusion": stable_diffusion,
  "pixel_diffusion": pixel_diffusion,
  "unclip": unclip,
}
VARIANTS = tuple(SYSTEMS)
