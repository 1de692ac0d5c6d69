"""All settings of a run, and what must hold between their groups."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated

from omniimage.data.sources.mixture import MixtureSettings
from omniimage.ranges import SEEDS, Ranged
from omniimage.settings.data import DataSettings
from omniimage.settings.kinds import MOST_PATCH_ROWS, MOST_STEPS, divides, require
from omniimage.settings.parts import (
  AutoencoderSettings,
  CodebookSettings,
  DecoderSettings,
  EmbedderSettings,
  PriorSettings,
  TokenizerSettings,
)
from omniimage.settings.run import MeshSettings, RunSettings
from omniimage.settings.sampling import AS_TRAINED, SamplingSettings
from omniimage.settings.training import FaultSettings, OptimizerSettings, StageSettings
from omniimage.size import Size, in_pixels, size_of
from omniimage.vocabulary import MAX_GRID, image_length

COMPUTE_TYPES = ("auto", "float32", "bfloat16")
REMAT = ("none", "projections", "mlp", "attention", "full", "offload")  # from all saved to nothing, or on the host


@dataclasses.dataclass(frozen=True)
class Settings(Ranged):
  system: str  # what is trained, of `omniimage.systems.SYSTEMS`
  seed: Annotated[int, SEEDS]
  compute_dtype: str  # of activations; "auto" is what suits the devices, `models.compute_type`; weights are float32
  scan_layers: bool  # one compiled layer looped over (large models) or all unrolled (faster on CPU)
  gather_params: str  # how layers get their parameters over mesh.fsdp: "compiler" or, over rows alone, by "hand"
  remat: str  # what the backward pass finds saved, a name of `models.remat.SAVED`; "none": nothing is recomputed
  lpips: str  # file of `launch.convert`: the weights of LPIPS, for losses that have a weight for it and for `quality`
  data: DataSettings
  # By its keys: codes of a fixed codebook or of a learnt one, latents, or embeddings.
  tokenizer: TokenizerSettings | CodebookSettings | AutoencoderSettings | EmbedderSettings
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
    require(self.compute_dtype in COMPUTE_TYPES, f"compute_dtype={self.compute_dtype!r}: auto, float32 or bfloat16")
    require(self.remat in REMAT, f"remat={self.remat!r}: {', '.join(REMAT)}")
    require(self.gather_params in ("compiler", "hand"), f"gather_params={self.gather_params!r}: compiler or hand")
    require(
      self.gather_params == "compiler" or self.mesh.tensor == self.mesh.sequence == 1,
      f"gather_params='hand' divides rows alone: set mesh.tensor={self.mesh.tensor} and "
      f"mesh.sequence={self.mesh.sequence} to 1, or gather_params to compiler",
    )
    for name in self.schedule:
      require(name in self.stages, f"schedule names {name!r}; the stages are {', '.join(self.stages)}")
      self.data_of(name)
    require(self.total_steps > 0, f"schedule={self.schedule} makes no steps: name stages that have some")
    require(self.total_steps <= MOST_STEPS, f"the stages' steps add up to {self.total_steps}; at most {MOST_STEPS:,}")
    decoder, tokenizer = self.decoder, self.tokenizer
    divides(tokenizer.patch_size, decoder.pixels_per_token, "tokenizer.patch_size", "decoder.pixels_per_token")
    divides(decoder.patch_size, decoder.pixels_per_token, "decoder.patch_size", "decoder.pixels_per_token")
    divides(decoder.pixels_per_token, self.data.image_size, "decoder.pixels_per_token", "data.image_size")
    require(
      not self.data.codes or self.prior.input_images == "codes",
      f"prior.input_images={self.prior.input_images!r} reads more of input images than the codes that are stored in "
      f"data.codes={self.data.codes!r}; set prior.input_images to 'codes', or data.codes to '' to read images",
    )
    require(
      self.sampling.solver != "mean" or self.decoder.reads_gap,
      "sampling.solver='mean' is for a painter that was taught to go far in a step (decoder.reads_gap, and a stage "
      "with few_steps); take euler, heun or multistep",
    )
    self._check_buckets()
    self._choose_sampled_chunks()
    window = self.prior.local_layers[2] if self.prior.local_layers else self.data.sequence_length
    require(
      self.data.sequence_length <= window,
      f"data.sequence_length={self.data.sequence_length} is more than the {window:.0f} positions that the local layers "
      "see (prior.local_layers); make the rows shorter",
    )

  def _check_buckets(self):
    """SettingsError where two buckets are one, or the model cannot read or paint images of one."""
    ratios, named = self.data.aspect_ratios, {}
    require(bool(ratios), "data.aspect_ratios is empty; give width:height of the buckets, as ('1:1', '4:3', '3:4')")
    for ratio, size in zip(ratios, self.buckets):
      require(
        size not in named,
        f"data.aspect_ratios has {named.get(size)} and {ratio}, both of {size.rows}×{size.columns} visual tokens at "
        f"data.image_size={self.data.image_size}; leave one out",
      )
      named[size] = ratio
      self._check_size(size)
    highest, widest = (max(size.patches(self.decoder.patch_size)[axis] for size in self.buckets) for axis in (0, 1))
    for rows, _, columns in self.decoder.layouts:
      require(rows <= highest, f"chunk_rows={rows}: the canvas has {highest} patch rows")
      require(columns <= widest, f"chunk_columns={columns}: the canvas has {widest} patch columns")

  def _check_size(self, size: Size):
    """SettingsError where the model cannot read or paint images of a size."""
    patches = size.patches(self.decoder.patch_size)
    for what, key, count, most in (
      ("tokens", "pixels_per_token", max(size.rows, size.columns), MAX_GRID),
      ("patches", "patch_size", max(patches), MOST_PATCH_ROWS),
    ):
      given = f"data.image_size={self.data.image_size} by decoder.{key}={getattr(self.decoder, key)}"
      require(count <= most, f"{given} has {count} {what} a side; at most {most}")
    longest = image_length(size)
    require(
      self.data.sequence_length >= longest,
      f"data.sequence_length={self.data.sequence_length} cannot hold one image of {longest} tokens",
    )

  def _choose_sampled_chunks(self):
    """Puts the rows and columns that AS_TRAINED stands for in its place."""
    rows, columns = self.sampling.chunk_rows, self.sampling.chunk_columns
    if AS_TRAINED in (rows, columns):
      require(
        bool(self.trained_chunks) or rows != AS_TRAINED,
        f"decoder.chunk_rows={self.decoder.chunk_rows} with decoder.chunk_offsets={self.decoder.chunk_offsets}: chunks "
        "are sampled all as large; train a layout with offset 0 whose rows and columns divide the canvas's "
        f"{'×'.join(map(str, self.canvas))}",
      )
      chunk_rows, chunk_columns = self._nearest_trained(rows, columns)
      sampling = dataclasses.replace(self.sampling, chunk_rows=chunk_rows, chunk_columns=chunk_columns)
      object.__setattr__(self, "sampling", sampling)  # frozen, but only now being made
    sampled = self.sampling.chunk_rows, self.sampling.chunk_columns
    for key, asked, most in zip(("rows", "columns"), sampled, self.canvas):
      require(
        0 <= asked <= most,
        f"sampling.chunk_{key}={asked}: the canvas has {most} patch {key}; {AS_TRAINED} is as trained",
      )
      require(
        asked == 0 or most % asked == 0, f"sampling.chunk_{key}={asked} must divide the canvas's {most} patch {key}"
      )

  def _nearest_trained(self, *asked: int) -> tuple[int, int]:
    """What is asked for of a chunk, rows and columns, and where that is AS_TRAINED what the first trained one has that
    fits the rest, or the first of all."""

    def fits(chunk: tuple[int, int]) -> bool:
      each = zip(asked, chunk, self.canvas)
      return all(own == AS_TRAINED or (own or whole) == (there or whole) for own, there, whole in each)

    nearest = next(filter(fits, self.trained_chunks), *self.trained_chunks[:1] or [(0, 0)])
    return tuple(there if own == AS_TRAINED else own for own, there in zip(asked, nearest))

  def data_of(self, stage: str) -> DataSettings:
    """What a stage is trained on: all of it, or a mixture by the stage's own weights. SettingsError where those do not
    fit the source."""
    weights, source = self.stages[stage].source_weights, self.data.source
    if not weights:
      return self.data
    place = f"stages.{stage}.source_weights={weights}"
    require(
      isinstance(source, MixtureSettings), f"{place} are of a mixture, and data.source is {source.name}; set them to ()"
    )
    there = len(source.weights)
    require(len(weights) == there, f"{place}: data.source mixes {there} sources; give a weight for each, or ()")
    return dataclasses.replace(self.data, source=dataclasses.replace(source, weights=weights))

  @property
  def buckets(self) -> tuple[Size, ...]:
    """The sizes that batches have, of `data.aspect_ratios`. The first is that which is drawn by default."""
    data = self.data
    return tuple(size_of(ratio, data.image_size, self.decoder.pixels_per_token) for ratio in data.aspect_ratios)

  @property
  def largest_bucket(self) -> Size:
    """The size with the most visual tokens, by which memory and time are planned."""
    return max(self.buckets, key=lambda size: size.tokens)

  def drawing(self, named: str) -> "Settings":
    """These settings with another size as the first, which is drawn: width:height, one of the run's, or pixels, as
    128x64, whether trained or not. SettingsError where it cannot be drawn.

    It is painted in chunks as large as before, where those are trained and divide it; else as it was trained; else in
    stripes, the highest below that divide it. Texts have as much room as before.
    """
    data, sampling = self.data, self.sampling
    size = size_of(named, data.image_size, self.decoder.pixels_per_token)
    known = dict(zip(self.buckets, data.aspect_ratios))
    ratios = ", ".join(data.aspect_ratios)
    require(
      size in known or in_pixels(named) is not None,
      f"this run has learnt images of {ratios} (data.aspect_ratios), not of {named}; a size that it has not learnt is "
      "drawn if it is given in pixels, as 128x64",
    )
    canvas = size.patches(self.decoder.patch_size)
    trained = self._trained_chunks(canvas)
    if (sampling.chunk_rows, sampling.chunk_columns) not in ((0, 0), *trained):
      highest = min(sampling.chunk_rows or canvas[0], canvas[0])
      lower = (rows for rows in range(highest, 0, -1) if canvas[0] % rows == 0)
      rows, columns = trained[0] if trained else (next(lower), 0)
      sampling = dataclasses.replace(sampling, chunk_rows=rows, chunk_columns=columns)
    first = known.get(size, named)
    longer = max(0, image_length(size) - max(map(image_length, self.buckets)))
    data = dataclasses.replace(
      data,
      aspect_ratios=(first, *(other for other in data.aspect_ratios if other != first)),
      sequence_length=data.sequence_length + longer,
    )
    return dataclasses.replace(self, data=data, sampling=sampling)

  @property
  def canvas(self) -> tuple[int, int]:
    """Patch rows and columns of what is drawn, of the first bucket."""
    return self.buckets[0].patches(self.decoder.patch_size)

  @property
  def trained_chunks(self) -> tuple[tuple[int, int], ...]:
    """Patch rows and columns (0: the whole width) of the chunks that are trained and that sampling, all chunks as
    large, can paint."""
    return self._trained_chunks(self.canvas)

  def _trained_chunks(self, canvas: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    high, wide = canvas
    layouts = [(rows or high, columns, offset) for rows, offset, columns in self.decoder.layouts]
    return tuple(
      (rows, columns)
      for rows, columns, offset in layouts
      if high % rows == offset % rows == 0 and (not columns or wide % columns == offset % columns == 0)
    )

  @property
  def paints_as_trained(self) -> bool:
    high, wide = self.canvas
    asked = self.sampling.chunk_rows or high, self.sampling.chunk_columns or wide
    return asked in [(rows, columns or wide) for rows, columns in self.trained_chunks]

  @property
  def total_steps(self) -> int:
    return sum(self.stages[name].steps for name in self.schedule)
