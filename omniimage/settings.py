"""Settings: the frozen dataclasses a config becomes.

A config file is an `ml_collections.ConfigDict`; `from_config` turns it, once, into the dataclasses below. An unknown
key, a wrong type or an impossible combination raises `SettingsError` with one line that names the key and what to
change, before anything is compiled.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from omniimage.errors import UserError

PARTS = ("tokenizer", "prior", "decoder")
REMAT = ("none", "projections", "mlp", "attention", "full", "offload")  # from all saved to nothing, or on the host
TEACHERS = {"tokenizer": ("pixel", "diffusion"), "prior": ("text", "image", "diffusion"), "decoder": ("diffusion",)}


class SettingsError(UserError):
  """A config that cannot work. The message is one line: what was given, what was expected, what to change."""


def require(condition: bool, message: str):
  if not condition:
    raise SettingsError(message)


def divides(small: int, large: int, small_name: str, large_name: str):
  require(small > 0 and large % small == 0, f"{large_name}={large} must be a multiple of {small_name}={small}")


def positive(settings: Any, group: str, *names: str):
  for name in names:
    require(getattr(settings, name) > 0, f"{group}{name}={getattr(settings, name)} must be positive")


@dataclasses.dataclass(frozen=True)
class ScenesSettings:
  """The procedural world, `omniimage.data.scenes`."""

  name: str
  grid: int
  min_objects: int
  max_objects: int

  def __post_init__(self):
    require(2 <= self.grid <= 5, f"data.source.grid={self.grid} must be from 2 to 5")
    require(
      1 <= self.min_objects <= self.max_objects <= self.grid**2,
      f"data.source: 1 <= min_objects={self.min_objects} <= max_objects={self.max_objects} <= grid² must hold",
    )


@dataclasses.dataclass(frozen=True)
class EmojiSettings:
  """The Fluent 3D emoji, `omniimage.data.emoji`."""

  name: str


SOURCES = {"scenes": ScenesSettings, "emoji": EmojiSettings}


@dataclasses.dataclass(frozen=True)
class DataSettings:
  source: ScenesSettings | EmojiSettings
  image_size: int  # pixels, square
  sequence_length: int  # tokens a packed row holds
  images_per_row: int  # image slots a packed row holds
  packing_rows: int  # rows that one block of records is packed into
  drop_text: float  # share of conversations without their text, for guidance
  vocabulary: str  # "builtin" or the path of a tokenizer.json

  def __post_init__(self):
    require(0 <= self.drop_text < 1, f"data.drop_text={self.drop_text} must be in [0, 1)")
    positive(self, "data.", "image_size", "sequence_length", "packing_rows")
    require(self.images_per_row >= 0, f"data.images_per_row={self.images_per_row} is negative; 0 is text alone")


@dataclasses.dataclass(frozen=True)
class TokenizerSettings:
  patch_size: int  # pixels a code stands for, along one side
  width: int
  encoder_depth: int
  decoder_depth: int
  heads: int
  mlp_width: int
  levels: tuple[int, ...]  # FSQ levels; the codebook has their product

  def __post_init__(self):
    require(
      len(self.levels) >= 2 and min(self.levels) >= 2,
      f"tokenizer.levels={self.levels}: give two channels or more of at least 2 levels, as in (8, 5, 5, 5)",
    )
    positive(self, "tokenizer.", "patch_size", "width", "encoder_depth", "decoder_depth", "heads", "mlp_width")
    divides(2 * self.heads, self.width, "2 × tokenizer.heads", "tokenizer.width")

  @property
  def codes(self) -> int:
    return math.prod(self.levels)


@dataclasses.dataclass(frozen=True)
class PriorSettings:
  width: int
  depth: int
  heads: int
  kv_heads: int
  head_width: int
  mlp_width: int
  qk_norm: bool
  qkv_bias: bool
  tied_head: bool
  rope_theta: float
  text_rows: int  # rows of the text table at least, so that a larger vocabulary can take its place; 0: what is needed

  def __post_init__(self):
    positive(self, "prior.", "width", "depth", "heads", "kv_heads", "head_width", "mlp_width", "rope_theta")
    divides(self.kv_heads, self.heads, "prior.kv_heads", "prior.heads")
    require(self.head_width % 2 == 0, f"prior.head_width={self.head_width} must be even, for rotary positions")


@dataclasses.dataclass(frozen=True)
class DecoderSettings:
  patch_size: int  # pixels
  pixels_per_token: int  # pixels painted a visual token, along one side; a multiple of tokenizer.patch_size
  width: int
  depth: int
  heads: int
  kv_heads: int  # of self- and cross-attention
  mlp_width: int
  chunk_rows: tuple[int, ...]  # patch rows a chunk, one entry a layout drawn in training; 0 is the whole canvas at once
  chunk_offsets: tuple[int, ...]  # patch rows by which a layout's first chunk is shorter, one entry a layout
  context_rows: int  # patch rows of finished chunks that a chunk sees; 0 is all
  text_length: int  # text states a painter reads: the last so many before its image
  finished_noise: float  # largest σ of the noise on the finished copy
  time_mean: float  # logit-normal t: mean and standard deviation of logit(t)
  time_std: float
  drop_tokens: float  # share of images painted without their visual tokens, for guidance
  drop_text: float  # share painted without their text

  def __post_init__(self):
    positive(self, "decoder.", "patch_size", "pixels_per_token", "width", "depth", "heads", "mlp_width", "text_length")
    divides(2 * self.heads, self.width, "2 × decoder.heads", "decoder.width")
    divides(self.kv_heads, self.heads, "decoder.kv_heads", "decoder.heads")
    require(
      len(self.chunk_rows) == len(self.chunk_offsets) > 0,
      f"decoder.chunk_rows={self.chunk_rows} and decoder.chunk_offsets={self.chunk_offsets} need one entry a layout",
    )
    for name in ("drop_tokens", "drop_text", "finished_noise"):
      require(0 <= getattr(self, name) < 1, f"decoder.{name}={getattr(self, name)} must be in [0, 1)")
    for name in ("context_rows", "time_std"):
      require(getattr(self, name) >= 0, f"decoder.{name}={getattr(self, name)} is negative")


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """loss = text·CE(text) + image·CE(codes) + diffusion·flow + pixel·reconstruction. A term of weight 0 is not
  traced."""

  text: float
  image: float
  diffusion: float
  pixel: float
  z: float  # weight of log² Z beside each cross-entropy

  def __post_init__(self):
    for field in dataclasses.fields(self):
      require(getattr(self, field.name) >= 0, f"loss weight {field.name}={getattr(self, field.name)} is negative")
    require(self.text + self.image + self.diffusion + self.pixel > 0, "a stage needs a loss weight above zero")


@dataclasses.dataclass(frozen=True)
class StageSettings:
  """A stage: loss weights, which parts move and how fast, and for how long. Nothing else distinguishes stages."""

  weights: LossWeights
  steps: int
  rows: int  # packed rows in a global batch
  accumulate: int  # microbatches a step is split into
  warmup_steps: int
  tokenizer_rate: float  # peak learning rate of each part; 0: the part does not move
  prior_rate: float
  decoder_rate: float
  sampled_codes: float  # share of images painted from codes drawn from the prior's own logits

  def __post_init__(self):
    require(self.steps >= 0, f"steps={self.steps} is negative")
    require(
      0 <= self.warmup_steps <= max(self.steps, 1), f"warmup_steps={self.warmup_steps} exceeds steps={self.steps}"
    )
    positive(self, "", "rows", "accumulate")
    divides(self.accumulate, self.rows, "accumulate", "rows")
    for part in PARTS:
      require(self.rate(part) >= 0, f"{part}_rate={self.rate(part)} is negative; 0 keeps the {part} as it is")
    require(len(self.moves) > 0, "a stage needs a part that moves: set one of tokenizer_rate, prior_rate, decoder_rate")
    for part in self.moves:
      terms = TEACHERS[part]
      require(
        any(getattr(self.weights, term) for term in terms),
        f"{part}_rate={self.rate(part)}, but nothing teaches the {part}: give a weight to {' or '.join(terms)}",
      )
    require(0 <= self.sampled_codes <= 1, f"sampled_codes={self.sampled_codes} must be in [0, 1]")
    require(
      not self.sampled_codes or self.weights.diffusion > 0,
      f"sampled_codes={self.sampled_codes} is for painting: give weights.diffusion a weight",
    )

  def rate(self, part: str) -> float:
    return getattr(self, f"{part}_rate")

  @property
  def moves(self) -> tuple[str, ...]:
    return tuple(part for part in PARTS if self.rate(part) > 0)


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
  """Muon and AdamW, `omniimage.training.optimizer`."""

  muon_rms: float  # root mean square of the layers' matrices' updates, in learning rates; 0: AdamW moves them too
  b1: float
  b2: float
  weight_decay: float
  clip_norm: float
  final_rate: float  # learning rate at the end of a stage, as a share of its peak
  ema_decay: float

  def __post_init__(self):
    positive(self, "optimizer.", "clip_norm")
    for name in ("muon_rms", "weight_decay"):
      require(getattr(self, name) >= 0, f"optimizer.{name}={getattr(self, name)} is negative")
    for name in ("b1", "b2", "ema_decay"):
      require(0 <= getattr(self, name) < 1, f"optimizer.{name}={getattr(self, name)} must be in [0, 1)")
    require(0 <= self.final_rate <= 1, f"optimizer.final_rate={self.final_rate} must be in [0, 1]")


@dataclasses.dataclass(frozen=True)
class SamplingSettings:
  temperature: float
  top_k: int  # 0: all
  top_p: float  # 1: all
  guidance: float  # of the prior, against no text; 1: none
  diffusion_steps: int  # Euler steps a chunk
  chunk_rows: int  # patch rows painted at a time; 0 paints the whole canvas at once
  token_guidance: float  # of the painter, against no visual tokens; 1: none
  text_guidance: float  # of the painter, against no text; 1: none

  def __post_init__(self):
    require(self.temperature >= 0, f"sampling.temperature={self.temperature} is negative")
    require(0 < self.top_p <= 1, f"sampling.top_p={self.top_p} must be in (0, 1]")
    require(self.top_k >= 0, f"sampling.top_k={self.top_k} is negative; 0 keeps all")
    require(self.diffusion_steps > 0, f"sampling.diffusion_steps={self.diffusion_steps} must be positive")


@dataclasses.dataclass(frozen=True)
class MeshSettings:
  """Devices along each axis; one of them may be -1: all the devices that remain."""

  data: int
  fsdp: int
  tensor: int
  sequence: int

  def __post_init__(self):
    sizes = dataclasses.astuple(self)
    require(sum(size == -1 for size in sizes) <= 1, f"mesh {sizes}: at most one axis may be -1")
    require(all(size == -1 or size > 0 for size in sizes), f"mesh {sizes}: axes are positive, or -1 for the rest")


@dataclasses.dataclass(frozen=True)
class FaultSettings:
  """What happens to updates that must not count, `omniimage.training.health`."""

  spike_score: float  # deviations above the median of the losses before that make a spike, which is logged
  skip_spikes: bool  # their updates change nothing
  roll_back_after: int  # updates in a row that changed nothing: back to the last checkpoint before them

  def __post_init__(self):
    positive(self, "faults.", "spike_score", "roll_back_after")


@dataclasses.dataclass(frozen=True)
class RunSettings:
  checkpoint_every: int  # steps
  keep_checkpoints: int  # the last so many
  keep_every: int  # and those at multiples of so many steps; 0: none
  log_every: int  # steps
  sample_every: int  # steps between sample sheets; 0: only at the end of a stage

  def __post_init__(self):
    positive(self, "run.", "checkpoint_every", "keep_checkpoints", "log_every")
    require(self.keep_every >= 0, f"run.keep_every={self.keep_every} is negative; 0 keeps the last ones alone")
    require(self.sample_every >= 0, f"run.sample_every={self.sample_every} is negative; 0 draws at the end of stages")


@dataclasses.dataclass(frozen=True)
class Settings:
  seed: int
  compute_dtype: str  # of activations; weights are float32
  scan_layers: bool  # one compiled layer looped over (large models) or all unrolled (faster on CPU)
  gather_params: str  # how layers get their parameters over mesh.fsdp: "compiler" or, over rows alone, by "hand"
  fuse_gathers: bool  # on v5e, with elementwise work too, `omniimage.distributed.xla_flags`
  remat: str  # what the backward pass finds saved, a name of `models.layers.SAVED`; "none": nothing is recomputed
  data: DataSettings
  tokenizer: TokenizerSettings
  prior: PriorSettings
  decoder: DecoderSettings
  schedule: tuple[str, ...]  # stages, in order
  stages: Mapping[str, StageSettings]
  optimizer: OptimizerSettings
  sampling: SamplingSettings
  mesh: MeshSettings
  faults: FaultSettings
  run: RunSettings

  def __post_init__(self):
    require(self.compute_dtype in ("float32", "bfloat16"), f"compute_dtype={self.compute_dtype!r}: float32 or bfloat16")
    require(self.seed >= 0, f"seed={self.seed} is negative")
    require(self.remat in REMAT, f"remat={self.remat!r}: {', '.join(REMAT)}")
    require(self.gather_params in ("compiler", "hand"), f"gather_params={self.gather_params!r}: compiler or hand")
    require(
      self.gather_params == "compiler" or self.mesh.tensor == self.mesh.sequence == 1,
      f"gather_params='hand' divides rows alone: set mesh.tensor={self.mesh.tensor} and "
      f"mesh.sequence={self.mesh.sequence} to 1, or gather_params to compiler",
    )
    for name in self.schedule:
      require(name in self.stages, f"schedule names {name!r}; the stages are {', '.join(self.stages)}")
    require(self.total_steps > 0, f"schedule={self.schedule} makes no steps: name stages that have some")
    decoder, tokenizer = self.decoder, self.tokenizer
    divides(tokenizer.patch_size, decoder.pixels_per_token, "tokenizer.patch_size", "decoder.pixels_per_token")
    divides(decoder.patch_size, decoder.pixels_per_token, "decoder.patch_size", "decoder.pixels_per_token")
    divides(decoder.pixels_per_token, self.data.image_size, "decoder.pixels_per_token", "data.image_size")
    longest = self.token_grid**2 + 4
    require(
      self.data.sequence_length >= longest,
      f"data.sequence_length={self.data.sequence_length} cannot hold one image of {longest} tokens",
    )
    for rows in (*decoder.chunk_rows, self.sampling.chunk_rows):
      require(0 <= rows <= self.patch_grid, f"chunk_rows={rows}: the canvas has {self.patch_grid} patch rows")
    sampled = self.sampling.chunk_rows
    require(sampled == 0 or self.patch_grid % sampled == 0,
            f"sampling.chunk_rows={sampled} must divide the canvas's {self.patch_grid} patch rows")  # fmt: skip

  @property
  def token_grid(self) -> int:
    """Visual tokens along one side of an image."""
    return self.data.image_size // self.decoder.pixels_per_token

  @property
  def patch_grid(self) -> int:
    """Decoder patches along one side of an image."""
    return self.data.image_size // self.decoder.patch_size

  @property
  def total_steps(self) -> int:
    return sum(self.stages[name].steps for name in self.schedule)


def from_config(config: Mapping[str, Any]) -> Settings:
  """Converts a ConfigDict (or plain nested dict) into `Settings`. Raises SettingsError."""
  plain = config.to_dict() if hasattr(config, "to_dict") else dict(config)
  return _build(Settings, plain, "config")


def _build(cls: type, values: Any, path: str):
  require(isinstance(values, Mapping), f"{path}={values!r} must be a group of keys")
  hints = typing.get_type_hints(cls)
  for key in values:
    if key not in hints:
      close = difflib.get_close_matches(key, hints, n=1)
      hint = f"did you mean {path}.{close[0]}?" if close else f"the keys are {', '.join(hints)}"
      raise SettingsError(f"{path}.{key} is not a setting; {hint}")
  missing = [key for key in hints if key not in values]
  require(not missing, f"{path}.{missing[0] if missing else ''} is missing; add it, as the files in configs/ have it")
  built = {key: _convert(hints[key], values[key], f"{path}.{key}") for key in hints}
  try:
    return cls(**built)
  except SettingsError as error:
    raise SettingsError(f"{path}: {error}") from None


def _convert(hint: Any, value: Any, path: str):
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if origin is types.UnionType:  # the data source: its name chooses the dataclass
    name = value.get("name") if isinstance(value, Mapping) else value
    require(name in tuple(SOURCES), f"{path}.name={name!r} is not a data source; there are {', '.join(SOURCES)}")
    return _build(SOURCES[name], value, path)
  if dataclasses.is_dataclass(hint):
    return _build(hint, value, path)
  if origin is tuple:
    require(isinstance(value, (tuple, list)), f"{path}={value!r} must be a tuple of {args[0].__name__}")
    return tuple(_convert(args[0], item, f"{path}[{i}]") for i, item in enumerate(value))
  if origin is typing.get_origin(Mapping[str, int]):
    require(isinstance(value, Mapping), f"{path}={value!r} must be a group of keys")
    return types.MappingProxyType({key: _convert(args[1], item, f"{path}.{key}") for key, item in value.items()})
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value)
  good = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
  require(good, f"{path}={value!r} is of type {type(value).__name__}; expected {hint.__name__}")
  return value
