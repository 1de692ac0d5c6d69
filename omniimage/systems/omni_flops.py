"""FLOPs that a model needs, whatever a program does: what model FLOP utilization (MFU) counts.

2 × (matmul parameters × tokens they are used on) forward, and the same twice again in the backward pass of parts that
move; once again for the gradient that passes through a frozen decoder to those before it. Attention likewise: 4 ×
width × (query, key) pairs forward. Pairs are those that the masks allow: half of them in the prior, where segments are
taken to be as long as the row; those of the doubled sequence in the decoder; all of them in cross-attention. Never
counted are recomputation, embedding lookups, norms, optimizers and what is only measured.
"""

import numpy as np

from omniimage.models.adapter import READ
from omniimage.models.chunks import ChunkLayout
from omniimage.models.diffusion_decoder import TIME_FREQUENCIES
from omniimage.models.grid_embedding import PAIRS as GRID_PAIRS
from omniimage.models.prior import padded
from omniimage.settings import (
  CodebookSettings,
  DecoderSettings,
  EncoderSettings,
  PriorSettings,
  Settings,
  StageSettings,
)
from omniimage.size import Size
from omniimage.vocabulary import Vocabulary

FORWARD, THROUGH, LEARNS = 1, 2, 3  # forward alone; with the gradient of what came in; with that of parameters too


def step_flops(settings: Settings, stage: StageSettings, text_size: int, size: Size, coded: bool = False) -> float:
  """One update on the stage's global batch of images of a size, or of their codes. Of several chunk layouts, the
  dearest."""
  s = settings
  images = stage.rows * s.data.images_per_row

  def pays(part: str) -> int:
    return LEARNS if part in stage.moves else FORWARD

  encoding = tokenizer_flops(s, s.tokenizer.encoder_depth, size) + search_flops(s, size)
  flops = 0 if coded else images * encoding * pays("tokenizer")
  if stage.weight("pixel"):
    flops += images * tokenizer_flops(s, s.tokenizer.decoder_depth, size) * pays("tokenizer")
  if stage.weight("text") or stage.weight("image") or stage.weight("diffusion"):
    tokens = s.data.sequence_length
    row = tokens * prior_token_flops(s.prior) + 2 * s.prior.depth * tokens**2 * s.prior.heads * s.prior.head_width
    if stage.weight("text"):
      row += tokens * head_flops(s, text_size, "text")
    if stage.weight("image") or stage.sampled_codes:
      row += s.data.images_per_row * size.tokens * head_flops(s, text_size, "image")
    if s.prior.input_images in READ:
      row += s.data.images_per_row * size.tokens * adapter_flops(s)
    if s.prior.grid_embedding:
      row += s.data.images_per_row * size.tokens * 4 * GRID_PAIRS * s.prior.width
    flops += stage.rows * row * pays("prior")
  if stage.weight("diffusion"):
    canvas = size.patches(s.decoder.patch_size)
    layouts = (ChunkLayout(*canvas, *row) for row in s.decoder.layouts)
    dearest = max(decoder_flops(s, layout, size) for layout in layouts)
    slopes = 2 * FORWARD if stage.few_steps else 0  # the way that is taken, and how the prediction changes on it
    flops += images * dearest * (slopes + (LEARNS if "decoder" in stage.moves else THROUGH))
  return float(flops)


def token_flops(settings: Settings, text_size: int, length: int, kinds: tuple[str, ...] = ()) -> float:
  """One token of one row written to a cache of `length` places, and its logits over tables of some kinds."""
  p = settings.prior
  attention = 4 * p.depth * length * p.heads * p.head_width
  return float(prior_token_flops(p) + attention + sum(head_flops(settings, text_size, kind) for kind in kinds))


def chunk_flops(settings: Settings, layout: ChunkLayout, size: Size) -> float:
  """The last chunk of an image, of chunks that are all as large: the painter's passes of sampling without guidance, and
  the one that keeps it."""
  d, s = settings.decoder, settings.sampling
  patches, memory = layout.rows * layout.columns // layout.count, size.tokens + d.text_length + 1
  before = layout.row_of_patch[:-patches] >= layout.first_visible_row(layout.count - 1, d.context_rows)
  pairs = patches * (int(before.sum()) + patches + memory)
  ends = 2 * 3 * d.patch_size**2 * d.width * patches
  passes = 1 + s.diffusion_steps * (2 if s.solver == "heun" else 1)
  return float(passes * (2 * (ends + d.depth * on_patch(d) * patches) + 4 * d.depth * d.width * pairs))


# Forward passes


def prior_token_flops(p: PriorSettings) -> int:
  """The prior's layers on one token, without attention's pairs."""
  heads = 2 * p.heads + 2 * p.kv_heads  # of query and output, key and value
  return 2 * p.depth * p.width * (heads * p.head_width + 3 * p.mlp_width)


def head_flops(settings: Settings, text_size: int, kind: str) -> int:
  """The logits of one token over one of the prior's two tables, as padded."""
  vocabulary = Vocabulary(text_size, settings.tokenizer.codes)
  ids = vocabulary.image_codes if kind == "image" else max(vocabulary.text_and_specials, settings.prior.text_rows)
  return 2 * settings.prior.width * padded(ids)


def adapter_flops(settings: Settings) -> int:
  """The feature that the prior reads at one place of an input image, without the encoder."""
  width = settings.prior.width
  return 2 * width * (settings.tokenizer.width + width)


def tokenizer_flops(settings: Settings, depth: int, size: Size) -> int:
  """The tokenizer's encoder or its own decoder, of a depth, on one image."""
  return trunk_flops(settings.tokenizer, depth, size.tokens, settings.tokenizer.channels)


def search_flops(settings: Settings, size: Size) -> int:
  """The product of one image's places with a codebook that is learnt."""
  t = settings.tokenizer
  return 2 * size.tokens * t.codes * t.code_width if isinstance(t, CodebookSettings) else 0


def trunk_flops(t: EncoderSettings, depth: int, places: int, channels: int) -> int:
  """An encoder of a depth, or a decoder, between the pixels of so many places and so many channels of each."""
  ends = t.width * (3 * t.patch_size**2 + channels)
  layer = 4 * t.width**2 + 3 * t.width * t.mlp_width
  return 2 * places * (ends + depth * layer) + 4 * depth * t.width * places**2


def decoder_flops(settings: Settings, layout: ChunkLayout, size: Size) -> int:
  """The diffusion decoder on the doubled sequence of one image."""
  d, visual = settings.decoder, size.tokens
  text = min(d.text_length, settings.data.sequence_length)
  canvas = layout.rows * layout.columns
  patches, memory = layout.finished + canvas, visual + text + 1

  pixels = 3 * d.patch_size**2
  ends = d.width * pixels * (patches + canvas)  # the finished copy's x̂ is not asked for
  conditions = d.width * (settings.tokenizer.channels * visual + settings.prior.width * text)
  times = (layout.finished_groups + layout.groups) * d.width * (2 * TIME_FREQUENCIES + 9 * d.width)
  layer = on_patch(d) * patches + 2 * d.width * kv_width(d) * memory
  pairs = seen_pairs(layout, d) + patches * memory
  return 2 * (ends + conditions + times + d.depth * layer) + 4 * d.depth * d.width * pairs


def on_patch(d: DecoderSettings) -> int:
  """Multiplications of a layer on one patch: own and cross-attention, without pairs, and the MLP."""
  return 4 * d.width**2 + 2 * d.width * kv_width(d) + 3 * d.width * d.mlp_width


def kv_width(d: DecoderSettings) -> int:
  """Numbers of the keys of a patch, and as many of its values."""
  return d.width // d.heads * d.kv_heads


def seen_pairs(layout: ChunkLayout, d: DecoderSettings) -> int:
  """(query, key) pairs that the mask of `DoubledChunks` allows."""
  pairs, row, sizes = 0, layout.row_of_patch, np.bincount(layout.chunk_of_patch).tolist()
  for chunk, size in enumerate(sizes):
    before = row[: sum(sizes[:chunk])] >= layout.first_visible_row(chunk, d.context_rows)
    copies = 2 if chunk < layout.count - 1 else 1  # the last chunk has no finished one
    pairs += copies * size * (int(before.sum()) + size)
  return pairs
