"""Scenes: one to four objects on a 2×2 grid, 32×32 pixels; the demo, on two CPU cores.

  python -m launch.train --config=configs/scenes.py --workdir=runs/scenes

Variants: `configs/scenes.py:tiny` is the same pipeline at a size for notebooks and tests.
"""

from ml_collections import ConfigDict

from .common import base, stage

VARIANTS = ("demo", "tiny")


def get_config(variant: str = "demo") -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"configs/scenes.py has the variants demo and tiny, not {variant!r}")
  config = base()

  config.data.source = source = ConfigDict(dict(name="scenes"))
  source.grid = 2  # cells of a side
  source.min_objects = 1
  source.max_objects = 4
  source.tasks = ("text_to_image",)
  source.jitter = 0  # pixels that objects stand beside the centers of their cells, at most
  source.unseen = ()  # "red star": colors of shapes that training never shows together, in any task
  source.validation = 0.0  # share of the scenes that is set aside to choose settings by
  config.data.image_size = 32  # pixels
  config.data.sequence_length = 100  # tokens a row: two scenes
  config.data.images_per_row = 2

  config.tokenizer = tokenizer = ConfigDict()
  tokenizer.patch_size = 8  # pixels: a cell of the grid is 2×2 codes
  tokenizer.width = 128
  tokenizer.encoder_depth = 2
  tokenizer.decoder_depth = 2
  tokenizer.heads = 4
  tokenizer.mlp_width = 256
  tokenizer.levels = (8, 5, 5, 5)  # 1,000 codes, the FSQ paper's levels for 2^10

  config.prior = prior = ConfigDict()
  prior.width = 128
  prior.depth = 4
  prior.heads = 4
  prior.kv_heads = 2
  prior.head_width = 32
  prior.mlp_width = 320
  prior.qk_norm = True
  prior.qkv_bias = False
  prior.tied_head = False
  prior.gemma = False  # nor Gemma 3's layers
  prior.norm_epsilon = 1e-6
  prior.rope_theta = 10_000.0
  prior.rope_scaling = ()  # of the rotary frequencies, as in Llama 3; none
  prior.local_layers = ()  # as in Gemma 3; none
  prior.input_images = "codes"  # or features of the tokenizer's encoder in their place, or both
  prior.grid_embedding = False  # rows and columns added to the embeddings of codes, for what tells where things are
  prior.text_rows = 0  # of the text table: what the vocabulary needs
  prior.init = ""  # or hf:FOLDER, an open language model to begin with; it sets what describes its layers

  config.decoder = decoder = ConfigDict()
  decoder.patch_size = 8  # pixels; few wide patches keep two cores in matrix products instead of softmax
  decoder.pixels_per_token = 8  # paints the resolution that the tokenizer read
  decoder.width = 256
  decoder.depth = 4
  decoder.heads = 4
  decoder.kv_heads = 2  # halves what 56 states of memory cost beside 24 patches
  decoder.mlp_width = 640
  decoder.chunk_rows = (2,)  # patch rows a chunk, one entry a layout: two stripes of 16 pixels
  decoder.chunk_offsets = (0,)
  decoder.chunk_columns = ()  # patch columns a chunk likewise, for blocks; (): stripes of the whole width
  decoder.context_rows = 0  # finished chunks stay in sight
  decoder.text_length = 40  # a caption of four objects
  decoder.finished_noise = 0.2  # largest σ on finished chunks in training
  decoder.reads_gap = False  # how far a step goes, for a stage of `few_steps`
  decoder.time_mean = 0.0  # logit-normal t
  decoder.time_std = 1.0
  decoder.drop_tokens = 0.1
  decoder.drop_text = 0.1
  config.sampling.temperature = 0.0  # a caption says all there is to draw: the likeliest code is the right one

  config.schedule = ("tokenizer", "prior", "decoder", "joint")
  config.stages = ConfigDict()
  # Many small batches teach more than half as many twice as large, in the same time.
  shared = dict(rows=16, warmup_steps=50)
  config.stages.tokenizer = stage(weights=dict(pixel=1.0), rates=dict(tokenizer=2e-3), steps=1500, **shared)
  config.stages.prior = stage(weights=dict(image=1.0), rates=dict(prior=2e-3), steps=2300, **shared)
  config.stages.decoder = stage(weights=dict(diffusion=1.0), rates=dict(decoder=1e-3), steps=700, **shared)
  config.stages.joint = stage(
    weights=dict(image=1.0, diffusion=1.0, pixel=1.0),
    steps=60,
    rows=16,
    warmup_steps=10,
    # The codes are targets: they must hardly move. The others as at the end of their own stages: more undoes what they
    # have learnt.
    rates=dict(tokenizer=2e-6, prior=1e-4, decoder=1e-4),
    sampled_codes=0.25,
  )
  config.run.checkpoint_every = 200  # steps
  config.run.sample_every = 200
  if variant == "tiny":
    config.data.source.max_objects = 1
    shrink(config)
  return config


def shrink(config: ConfigDict):
  """A model of 650 thousand parameters: two minutes on two cores, not quality."""
  narrow(config)
  for name, steps in (("tokenizer", 2500), ("prior", 1500), ("decoder", 1500), ("joint", 20)):
    row = config.stages[name]
    row.steps, row.warmup_steps, row.rows = steps, 5, 8
  config.stages.tokenizer.rates.tokenizer = 4e-3
  config.stages.decoder.rates.decoder = 2e-3


def narrow(config: ConfigDict):
  """Parts at the size of a toy, of which no sheets are drawn."""
  for part in (config.tokenizer, config.prior, config.decoder):
    part.width, part.heads, part.mlp_width = 64, 2, 128
  config.prior.kv_heads = config.decoder.kv_heads = 1
  config.prior.depth = config.decoder.depth = 2
  config.tokenizer.update({name: 1 for name in config.tokenizer if name.endswith("_depth")})
  config.sampling.diffusion_steps = 8
  config.run.sample_every = 0
