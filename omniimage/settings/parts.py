"""The sizes of the model's parts."""

import dataclasses
import math
from typing import Annotated

from omniimage.ranges import Range, Ranged, shown
from omniimage.settings.kinds import (
  MOST_CODES,
  Depth,
  Heads,
  PartialShare,
  Patch,
  PatchRows,
  Weight,
  WideWidth,
  Width,
  divides,
  require,
)


@dataclasses.dataclass(frozen=True)
class EncoderSettings(Ranged):
  """Of an encoder of images."""

  patch_size: Patch  # a code, a latent, or what is read at a time, stands for, along one side
  width: Width
  encoder_depth: Depth
  heads: Heads
  mlp_width: WideWidth

  def __post_init__(self):
    super().__post_init__()
    divides(2 * self.heads, self.width, "2 × tokenizer.heads", "tokenizer.width")


@dataclasses.dataclass(frozen=True)
class TrunkSettings(EncoderSettings):
  """Of an encoder and a decoder of what it gives, whatever lies between them."""

  decoder_depth: Depth


@dataclasses.dataclass(frozen=True)
class TokenizerSettings(TrunkSettings):
  """Of an image tokenizer: images ↔ codes of a fixed codebook."""

  levels: tuple[Annotated[int, Range(2, MOST_CODES)], ...]  # FSQ levels; the codebook has their product

  def __post_init__(self):
    super().__post_init__()
    given = f"tokenizer.levels={shown(self.levels)}"
    require(len(self.levels) >= 2, f"{given}: give two channels or more of at least 2 levels, as in (8, 5, 5, 5)")
    require(self.codes <= MOST_CODES, f"{given} make {shown(self.codes)} codes; a codebook has at most {MOST_CODES:,}")

  @property
  def codes(self) -> int:
    return math.prod(self.levels)

  @property
  def channels(self) -> int:
    return len(self.levels)


CODEBOOKS = ("vq", "ibq")  # that are learnt, of `omniimage.models.quantizers.LEARNT`


@dataclasses.dataclass(frozen=True)
class CodebookSettings(TrunkSettings):
  """Of an image tokenizer whose codebook is learnt."""

  quantizer: str  # of CODEBOOKS
  codes: Annotated[int, Range(2, MOST_CODES)]
  code_width: Annotated[int, Range(2, 2**12)]  # channels of a code
  # Weight of the lighter half of the quantizer's loss, of the papers' name: what draws the encoder to its code (vq), or
  # the code to what it stands for (ibq).
  beta: Weight

  def __post_init__(self):
    super().__post_init__()
    require(self.quantizer in CODEBOOKS, f"tokenizer.quantizer={self.quantizer!r}: {', '.join(CODEBOOKS)}")

  @property
  def channels(self) -> int:
    return self.code_width


@dataclasses.dataclass(frozen=True)
class AutoencoderSettings(TrunkSettings):
  """Of an autoencoder: images ↔ latents, without a codebook."""

  channels: Annotated[int, Range(2, 2**12)]  # of a latent
  noise: Annotated[float, Range(0, 100)]  # largest σ of the noise on the latents that its decoder learns to read


@dataclasses.dataclass(frozen=True)
class EmbedderSettings(EncoderSettings):
  """Of two encoders, of images and of texts, into one space; the latter is as wide as the prior."""

  embedding: Annotated[int, Range(2, 2**14)]  # numbers of an embedding
  prior_depth: Depth  # of the diffusion from text to the embedding of an image, as wide as the decoder


INPUT_IMAGES = ("codes", "features", "both")


@dataclasses.dataclass(frozen=True)
class PriorSettings(Ranged):
  width: Width
  depth: Depth
  heads: Heads
  kv_heads: Heads
  head_width: Annotated[int, Range(2, 2048)]
  mlp_width: WideWidth
  qk_norm: bool
  qkv_bias: bool
  tied_head: bool
  gemma: bool  # Gemma 3's layers: norms before and behind each branch, scaled by 1 + w; GeGLU; embeddings × √width
  norm_epsilon: Annotated[float, Range(1e-12, 1)]
  rope_theta: Annotated[float, Range(1, 1e12)]
  # Llama 3's scaling of the rotary frequencies: by which factor, the turns between which it sets in, and the positions
  # trained on before, over which turns are counted; (): none.
  rope_scaling: tuple[Annotated[float, Range(1e-3, 1e9)], ...]
  # Gemma 3's: every so many layers one is global, with `rope_theta`; the rotary base of the others; the positions that
  # these see, which no row may exceed. (): all are global.
  local_layers: tuple[Annotated[float, Range(1, 1e12)], ...]
  # What stands for an image that the user shows: its codes, the features of the tokenizer's encoder before they are
  # quantized, or both, added. What the assistant draws stands there as codes.
  input_images: str
  grid_embedding: bool  # row and column of a code are added to its embedding, beside the rotary positions
  # Rows of the text table at least, so that a larger vocabulary can take its place; 0: what is needed.
  text_rows: Annotated[int, Range(0, 2**22)]
  init: str  # what a run begins with: "hf:FOLDER", an open language model (docs/language_models.md); "": nothing

  def __post_init__(self):
    super().__post_init__()
    divides(self.kv_heads, self.heads, "prior.kv_heads", "prior.heads")
    require(self.input_images in INPUT_IMAGES, f"prior.input_images={self.input_images!r}: {', '.join(INPUT_IMAGES)}")
    require(self.head_width % 2 == 0, f"prior.head_width={self.head_width} must be even, for rotary positions")
    require(
      len(self.rope_scaling) in (0, 4) and (not self.rope_scaling or self.rope_scaling[1] < self.rope_scaling[2]),
      f"prior.rope_scaling={self.rope_scaling} is no scaling; give (), or as Llama 3 has it (8.0, 1.0, 4.0, 8192.0): "
      "factor, low and high frequency factor, original positions",
    )
    require(
      len(self.local_layers) in (0, 3),
      f"prior.local_layers={self.local_layers} is no pattern; give (), or as Gemma 3 has it (6, 10000.0, 512): every "
      "so many layers a global one, the others' rotary base, and how far they see",
    )
    require(
      not self.init or (self.init.startswith("hf:") and len(self.init) > 3),
      f"prior.init={self.init!r} is no model to begin with; give hf:FOLDER, a model in Hugging Face's form, or "
      "'' for fresh parameters",
    )

  @property
  def norm(self) -> tuple[float, float]:
    """Epsilon and offset of its norms."""
    return self.norm_epsilon, float(self.gemma)


@dataclasses.dataclass(frozen=True)
class DecoderSettings(Ranged):
  patch_size: Patch
  pixels_per_token: Patch  # painted a visual token, along one side; a multiple of tokenizer.patch_size
  width: Width
  depth: Depth
  heads: Heads
  kv_heads: Heads  # of self- and cross-attention
  mlp_width: WideWidth
  # Patch rows a chunk, one entry a layout drawn in training; 0 is the whole canvas at once.
  chunk_rows: tuple[PatchRows, ...]
  chunk_offsets: tuple[PatchRows, ...]  # patches by which a layout's first chunk is shorter, one entry a layout
  # Patch columns a chunk, one entry a layout: blocks; 0 is the whole width. (): stripes alone.
  chunk_columns: tuple[PatchRows, ...]
  context_rows: PatchRows  # patch rows of finished chunks that a chunk sees; 0 is all
  text_length: Annotated[int, Range(1, 2**16)]  # text states a painter reads: the last so many before its image
  finished_noise: PartialShare  # largest σ of the noise on the finished copy
  reads_gap: bool  # reads how far a step goes, so that a stage can teach it to go far in few (`stages.*.few_steps`)
  time_mean: Annotated[float, Range(-30, 30)]  # logit-normal t: mean and standard deviation of logit(t)
  time_std: Annotated[float, Range(0, 10)]
  drop_tokens: PartialShare  # share of images painted without their visual tokens, for guidance
  drop_text: PartialShare  # share painted without their text

  def __post_init__(self):
    super().__post_init__()
    divides(2 * self.heads, self.width, "2 × decoder.heads", "decoder.width")
    divides(self.kv_heads, self.heads, "decoder.kv_heads", "decoder.heads")
    require(
      len(self.chunk_rows) == len(self.chunk_offsets) > 0,
      f"decoder.chunk_rows={self.chunk_rows} and decoder.chunk_offsets={self.chunk_offsets} need one entry a layout",
    )
    require(
      len(self.chunk_columns) in (0, len(self.chunk_rows)),
      f"decoder.chunk_columns={self.chunk_columns} needs one entry a layout, as decoder.chunk_rows={self.chunk_rows} "
      "has it; or () for stripes of the whole width",
    )

  @property
  def layouts(self) -> tuple[tuple[int, int, int], ...]:
    """(rows a chunk, offset, columns a chunk) of each layout."""
    columns = self.chunk_columns or (0,) * len(self.chunk_rows)
    return tuple(zip(self.chunk_rows, self.chunk_offsets, columns))
