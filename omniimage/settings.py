"""Settings: the frozen dataclasses a config becomes.

A config file is an `ml_collections.ConfigDict`; `from_config` turns it, once, into the dataclasses below. An unknown
key, a wrong type, a number out of its range or an impossible combination raises `SettingsError` with one line that
names the key and what to change, before anything is compiled.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from absl import logging

from omniimage.data.sources import SOURCES
from omniimage.data.sources.source import SourceSettings
from omniimage.errors import SettingsError
from omniimage.ranges import SEEDS, OutOfRange, Range, Ranged, shown
from omniimage.vocabulary import MAX_GRID, image_length

PARTS = ("tokenizer", "prior", "decoder")
REMAT = ("none", "projections", "mlp", "attention", "full", "offload")  # from all saved to nothing, or on the host
AS_TRAINED = -1  # sampling.chunk_rows: those of the painter's first trained layout that sampling can paint
TEACHERS = {"tokenizer": ("pixel", "diffusion"), "prior": ("text", "image", "diffusion"), "decoder": ("diffusion",)}
MOST_CODES = 2**20  # of a codebook: the prior's table and head have a row for each, and logits of every position
MOST_PATCH_ROWS = 256  # of a canvas: masks have the square of its patches
MOST_STEPS = 2**31 - 1  # counters are int32

Steps = Annotated[int, Range(1, MOST_STEPS)]
StepsOrNone = Annotated[int, Range(0, MOST_STEPS)]
Width = Annotated[int, Range(1, 2**16)]
WideWidth = Annotated[int, Range(1, 2**18)]
Depth = Annotated[int, Range(1, 256)]
Heads = Annotated[int, Range(1, 1024)]
Patch = Annotated[int, Range(1, 1024)]  # pixels
PatchRows = Annotated[int, Range(0, MOST_PATCH_ROWS)]
Share = Annotated[float, Range(0, 1)]
PartialShare = Annotated[float, Range(0, 0.999)]  # float32 rounds what is closer to 1
Decay = Annotated[float, Range(0, 0.999999)]
Weight = Annotated[float, Range(0, 1e6)]
Rate = Annotated[float, Range(0, 100)]
Guidance = Annotated[float, Range(0, 100)]
Axis = Annotated[int, Range(-1, 2**20)]


def require(condition: bool, message: str):
  if not condition:
    raise SettingsError(message)


def divides(small: int, large: int, small_name: str, large_name: str):
  require(small > 0 and large % small == 0, f"{large_name}={large} must be a multiple of {small_name}={small}")


@dataclasses.dataclass(frozen=True)
class DataSettings(Ranged):
  source: SourceSettings
  image_size: Annotated[int, Range(1, 2**14)]  # pixels, square
  sequence_length: Annotated[int, Range(1, 2**16)]  # tokens a packed row holds
  images_per_row: Annotated[int, Range(0, 1024)]  # image slots a packed row holds; 0 is text alone
  packing_rows: Annotated[int, Range(1, 2**16)]  # rows that one block of records is packed into
  drop_text: PartialShare  # share of conversations without their text, for guidance
  vocabulary: str  # "builtin" or the path of a tokenizer.json
  max_bad_records: Share  # share of the records read of late that may be unreadable; above it the run stops


@dataclasses.dataclass(frozen=True)
class TokenizerSettings(Ranged):
  patch_size: Patch  # a code stands for, along one side
  width: Width
  encoder_depth: Depth
  decoder_depth: Depth
  heads: Heads
  mlp_width: WideWidth
  levels: tuple[Annotated[int, Range(2, MOST_CODES)], ...]  # FSQ levels; the codebook has their product

  def __post_init__(self):
    super().__post_init__()
    given = f"tokenizer.levels={shown(self.levels)}"
    require(len(self.levels) >= 2, f"{given}: give two channels or more of at least 2 levels, as in (8, 5, 5, 5)")
    require(self.codes <= MOST_CODES, f"{given} make {shown(self.codes)} codes; a codebook has at most {MOST_CODES:,}")
    divides(2 * self.heads, self.width, "2 × tokenizer.heads", "tokenizer.width")

  @property
  def codes(self) -> int:
    return math.prod(self.levels)


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
  rope_theta: Annotated[float, Range(1, 1e12)]
  # Rows of the text table at least, so that a larger vocabulary can take its place; 0: what is needed.
  text_rows: Annotated[int, Range(0, 2**22)]

  def __post_init__(self):
    super().__post_init__()
    divides(self.kv_heads, self.heads, "prior.kv_heads", "prior.heads")
    require(self.head_width % 2 == 0, f"prior.head_width={self.head_width} must be even, for rotary positions")


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
  chunk_offsets: tuple[PatchRows, ...]  # patch rows by which a layout's first chunk is shorter, one entry a layout
  context_rows: PatchRows  # patch rows of finished chunks that a chunk sees; 0 is all
  text_length: Annotated[int, Range(1, 2**16)]  # text states a painter reads: the last so many before its image
  finished_noise: PartialShare  # largest σ of the noise on the finished copy
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


@dataclasses.dataclass(frozen=True)
class LossWeights(Ranged):
  """loss = text·CE(text) + image·CE(codes) + diffusion·flow + pixel·reconstruction. A term of weight 0 is not
  traced."""

  text: Weight
  image: Weight
  diffusion: Weight
  pixel: Weight
  z: Weight  # weight of log² Z beside each cross-entropy

  def __post_init__(self):
    super().__post_init__()
    require(self.text + self.image + self.diffusion + self.pixel > 0, "a stage needs a loss weight above zero")


@dataclasses.dataclass(frozen=True)
class StageSettings(Ranged):
  """A stage: loss weights, which parts move and how fast, and for how long. Nothing else distinguishes stages."""

  weights: LossWeights
  steps: StepsOrNone
  rows: Annotated[int, Range(1, 2**20)]  # packed rows in a global batch
  accumulate: Annotated[int, Range(1, 2**20)]  # microbatches a step is split into
  warmup_steps: StepsOrNone
  tokenizer_rate: Rate  # peak learning rate of each part; 0: the part does not move
  prior_rate: Rate
  decoder_rate: Rate
  sampled_codes: Share  # share of images painted from codes drawn from the prior's own logits

  def __post_init__(self):
    super().__post_init__()
    require(self.warmup_steps <= max(self.steps, 1), f"warmup_steps={self.warmup_steps} exceeds steps={self.steps}")
    divides(self.accumulate, self.rows, "accumulate", "rows")
    require(len(self.moves) > 0, "a stage needs a part that moves: set one of tokenizer_rate, prior_rate, decoder_rate")
    for part in self.moves:
      terms = TEACHERS[part]
      require(
        any(getattr(self.weights, term) for term in terms),
        f"{part}_rate={self.rate(part)}, but nothing teaches the {part}: give a weight to {' or '.join(terms)}",
      )
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
class OptimizerSettings(Ranged):
  """Muon and AdamW, `omniimage.training.optimizer`."""

  # Root mean square of the layers' matrices' updates, in learning rates; 0: AdamW moves them too.
  muon_rms: Annotated[float, Range(0, 100)]
  b1: Decay
  b2: Decay
  weight_decay: Annotated[float, Range(0, 100)]
  clip_norm: Annotated[float, Range(1e-6, 1e12)]
  final_rate: Share  # learning rate at the end of a stage, as a share of its peak
  ema_decay: Decay


@dataclasses.dataclass(frozen=True)
class SamplingSettings(Ranged):
  temperature: Annotated[float, Range(0, 1000)]  # of the codes; 0 takes the likeliest
  top_k: Annotated[int, Range(0, MOST_CODES)]  # 0: all
  top_p: Annotated[float, Range(1e-6, 1)]  # 1: all
  guidance: Guidance  # of the prior, against no text; 1: none
  diffusion_steps: Annotated[int, Range(1, 10_000)]  # Euler steps a chunk
  # Patch rows painted at a time; 0: the whole canvas at once; -1: as trained, until `Settings` has it.
  chunk_rows: Annotated[int, Range(AS_TRAINED, MOST_PATCH_ROWS)]
  token_guidance: Guidance  # of the painter, against no visual tokens; 1: none
  text_guidance: Guidance  # of the painter, against no text; 1: none


@dataclasses.dataclass(frozen=True)
class MeshSettings(Ranged):
  """Devices along each axis; one of them may be -1: all the devices that remain."""

  data: Axis
  fsdp: Axis
  tensor: Axis
  sequence: Axis

  def __post_init__(self):
    super().__post_init__()
    sizes = dataclasses.astuple(self)
    require(sum(size == -1 for size in sizes) <= 1, f"mesh {sizes}: at most one axis may be -1")
    require(0 not in sizes, f"mesh {sizes}: axes are positive, or -1 for the rest")


@dataclasses.dataclass(frozen=True)
class FaultSettings(Ranged):
  """What happens to updates that must not count, `omniimage.training.health`."""

  spike_score: Annotated[float, Range(1e-3, 1e6)]  # deviations above the last losses' median that make a spike
  skip_spikes: bool  # spikes are logged; with this their updates change nothing
  roll_back_after: Steps  # updates in a row that changed nothing: back to the last checkpoint before them


@dataclasses.dataclass(frozen=True)
class RunSettings(Ranged):
  checkpoint_every: Steps
  keep_checkpoints: Annotated[int, Range(1, MOST_STEPS)]  # the last so many
  keep_every: StepsOrNone  # and those at multiples of so many steps; 0: none
  log_every: Steps
  sample_every: StepsOrNone  # between sample sheets; 0: only at the end of a stage


@dataclasses.dataclass(frozen=True)
class Settings(Ranged):
  seed: Annotated[int, SEEDS]
  compute_dtype: str  # of activations; weights are float32
  scan_layers: bool  # one compiled layer looped over (large models) or all unrolled (faster on CPU)
  gather_params: str  # how layers get their parameters over mesh.fsdp: "compiler" or, over rows alone, by "hand"
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
    super().__post_init__()
    require(self.compute_dtype in ("float32", "bfloat16"), f"compute_dtype={self.compute_dtype!r}: float32 or bfloat16")
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
    require(self.total_steps <= MOST_STEPS, f"the stages' steps add up to {self.total_steps}; at most {MOST_STEPS:,}")
    decoder, tokenizer = self.decoder, self.tokenizer
    divides(tokenizer.patch_size, decoder.pixels_per_token, "tokenizer.patch_size", "decoder.pixels_per_token")
    divides(decoder.patch_size, decoder.pixels_per_token, "decoder.patch_size", "decoder.pixels_per_token")
    divides(decoder.pixels_per_token, self.data.image_size, "decoder.pixels_per_token", "data.image_size")
    for what, key, count, most in (
      ("tokens", "pixels_per_token", self.token_grid, MAX_GRID),
      ("patches", "patch_size", self.patch_grid, MOST_PATCH_ROWS),
    ):
      given = f"data.image_size={self.data.image_size} by decoder.{key}={getattr(decoder, key)}"
      require(count <= most, f"{given} has {count} {what} a side; at most {most}")
    longest = image_length(self.token_grid, self.token_grid)
    require(
      self.data.sequence_length >= longest,
      f"data.sequence_length={self.data.sequence_length} cannot hold one image of {longest} tokens",
    )
    for rows in decoder.chunk_rows:
      require(0 <= rows <= self.patch_grid, f"chunk_rows={rows}: the canvas has {self.patch_grid} patch rows")
    self._choose_sampled_rows()

  def _choose_sampled_rows(self):
    """Puts the number of rows that AS_TRAINED stands for in its place."""
    if self.sampling.chunk_rows == AS_TRAINED:
      require(
        bool(self.trained_rows),
        f"decoder.chunk_rows={self.decoder.chunk_rows} with decoder.chunk_offsets={self.decoder.chunk_offsets}: chunks "
        f"are sampled all as high; train a layout with offset 0 whose rows divide the canvas's {self.patch_grid}",
      )
      as_trained = dataclasses.replace(self.sampling, chunk_rows=self.trained_rows[0])
      object.__setattr__(self, "sampling", as_trained)  # frozen, but only now being made
    sampled = self.sampling.chunk_rows
    require(
      0 <= sampled <= self.patch_grid,
      f"sampling.chunk_rows={sampled}: the canvas has {self.patch_grid} patch rows; {AS_TRAINED} is as trained",
    )
    require(
      sampled == 0 or self.patch_grid % sampled == 0,
      f"sampling.chunk_rows={sampled} must divide the canvas's {self.patch_grid} patch rows",
    )

  @property
  def token_grid(self) -> int:
    """Visual tokens along one side of an image."""
    return self.data.image_size // self.decoder.pixels_per_token

  @property
  def patch_grid(self) -> int:
    """Decoder patches along one side of an image."""
    return self.data.image_size // self.decoder.patch_size

  @property
  def trained_rows(self) -> tuple[int, ...]:
    """Heights of the chunks, in patch rows, that are trained and that sampling, all chunks as high, can paint."""
    grid, layouts = self.patch_grid, zip(self.decoder.chunk_rows, self.decoder.chunk_offsets)
    heights = [(rows or grid, offset) for rows, offset in layouts]
    return tuple(height for height, offset in heights if grid % height == 0 and offset % height == 0)

  @property
  def paints_as_trained(self) -> bool:
    return (self.sampling.chunk_rows or self.patch_grid) in self.trained_rows

  @property
  def total_steps(self) -> int:
    return sum(self.stages[name].steps for name in self.schedule)

  def trained_parts(self, step: int) -> set[str]:
    """Parts that some update before `step` has moved."""
    moved, start = set(), 0
    for name in self.schedule:
      if step > start:
        moved |= set(self.stages[name].moves)
      start += self.stages[name].steps
    return moved


def from_config(config: Mapping[str, Any]) -> Settings:
  """Converts a ConfigDict (or plain nested dict) into `Settings`. Raises SettingsError."""
  settings = _settings(config)
  require(
    settings.paints_as_trained,
    f"config.sampling.chunk_rows={settings.sampling.chunk_rows} is never trained: decoder.chunk_rows="
    f"{settings.decoder.chunk_rows}, decoder.chunk_offsets={settings.decoder.chunk_offsets}; set it to {AS_TRAINED}, "
    "as trained, or train a layout with so many rows and offset 0",
  )
  return settings


def from_stored(config: Mapping[str, Any]) -> Settings:
  """`from_config` for a run that is there already: where it says to sample what was never trained, as runs of before
  may, it samples as trained, with a warning."""
  settings = _settings(config)
  if settings.paints_as_trained or not settings.trained_rows:
    return settings
  asked, as_trained = settings.sampling.chunk_rows, settings.trained_rows[0]
  logging.warning(
    "the run's sampling.chunk_rows=%d was never trained: painting %d patch rows at a time, as trained",
    asked,
    as_trained,
  )
  return dataclasses.replace(settings, sampling=dataclasses.replace(settings.sampling, chunk_rows=as_trained))


def _settings(config: Mapping[str, Any]) -> Settings:
  return _build(Settings, config.to_dict() if hasattr(config, "to_dict") else config, "config")


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
  except OutOfRange as error:
    raise SettingsError(f"{path}.{error}") from None
  except SettingsError as error:
    raise SettingsError(f"{path}: {error}") from None


def _convert(hint: Any, value: Any, path: str):
  origin, args = typing.get_origin(hint), typing.get_args(hint)
  if hint is SourceSettings:  # its name chooses the dataclass
    name = value.get("name") if isinstance(value, Mapping) else value
    require(name in tuple(SOURCES), f"{path}.name={name!r} is not a data source; there are {', '.join(SOURCES)}")
    return _build(SOURCES[name].settings, value, path)
  if dataclasses.is_dataclass(hint):
    return _build(hint, value, path)
  if origin is tuple:
    require(isinstance(value, (tuple, list)), f"{path}={shown(value)} must be a tuple of {args[0].__name__}")
    return tuple(_convert(args[0], item, f"{path}[{i}]") for i, item in enumerate(value))
  if origin is typing.get_origin(Mapping[str, int]):
    require(isinstance(value, Mapping), f"{path}={shown(value)} must be a group of keys")
    return types.MappingProxyType({key: _convert(args[1], item, f"{path}.{key}") for key, item in value.items()})
  if hint is float and isinstance(value, int) and not isinstance(value, bool):
    return float(value) if value.bit_length() < 1024 else value  # which is in no range
  good = isinstance(value, hint) and not (hint is int and isinstance(value, bool))
  require(good, f"{path}={shown(value)} is of type {type(value).__name__}; expected {hint.__name__}")
  return value
