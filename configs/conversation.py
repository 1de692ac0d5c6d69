"""One model for six tasks over scenes: drawing, captions, questions, edits, sketches, and conversations of four
pictures; one to four objects on a 3×3 grid, 48×48 pixels; ninety minutes on two CPU cores, a device each.

  export XLA_FLAGS=--xla_force_host_platform_device_count=2
  python -m launch.train --config=configs/conversation.py --workdir=runs/conversation
  python -m launch.evaluate --workdir=runs/conversation --suite=all --prompts=256
  python -m launch.chat --workdir=runs/conversation

Does seeing help drawing? The same without the other tasks:

  python -m launch.train --config=configs/conversation.py --config.data.source.tasks="('text_to_image',)" …
"""

from ml_collections import ConfigDict

from . import scenes

VARIANTS = ("demo", "tiny")
TASKS = ("text_to_image", "caption", "sketch", "conversation", "edit", "edit", "questions", "questions")


def get_config(variant: str = "demo") -> ConfigDict:
  if variant not in VARIANTS:
    raise ValueError(f"configs/conversation.py has the variants demo and tiny, not {variant!r}")
  config = scenes.get_config()

  config.data.source.update(dict(grid=3, max_objects=4, tasks=TASKS))
  config.data.image_size = 48  # pixels: 6×6 codes, a cell of the grid is 2×2 of them
  config.data.sequence_length = 288  # tokens a row: a conversation of four pictures, or two to four of another task
  config.data.images_per_row = 5

  # Of the demo's width and half as deep again. Wider ones see fewer examples in the same time.
  config.prior.depth = 6
  config.prior.mlp_width = 384
  config.prior.grid_embedding = True
  config.decoder.chunk_rows = (2,)  # three stripes of 16 pixels, a row of cells each

  config.stages.tokenizer.update(dict(steps=1500, rows=6))
  config.stages.prior.update(dict(weights=dict(text=1.0, image=1.0), steps=14_000, rows=6))
  config.stages.decoder.update(dict(steps=1200, rows=6))
  config.stages.joint.update(dict(weights=dict(text=1.0), steps=60, rows=6, rates=dict(prior=2e-5)))
  config.run.checkpoint_every = 500  # steps
  config.run.sample_every = 1000
  if variant == "tiny":
    config.data.source.max_objects = 1
    scenes.shrink(config)
  return config
