"""What the systems share that paint the whole canvas by one diffusion, straight from the text.

Axes: B rows, I image slots a row, F = B·I images, S text tokens, E text width, h × w the places of the canvas, Z
numbers of a place, N patches of the canvas, C numbers of a patch.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from omniimage.data.batches import Batch, empty_batch
from omniimage.data.text import TextTokenizer
from omniimage.distributed.sharding import LAYER_RULES, Rules
from omniimage.distributed.spread import Spread
from omniimage.models.canvas import Params, PixelDiffusion
from omniimage.models.diffusion_decoder import Memory
from omniimage.models.flow import flow_error, interpolate
from omniimage.models.lpips import Lpips
from omniimage.models.omni import last_text
from omniimage.sampling.canvas import CanvasDrawer
from omniimage.sampling.prompts import to_float
from omniimage.settings import Settings, StageSettings, require
from omniimage.size import Size
from omniimage.streams import Stream
from omniimage.systems.draws import of_images
from omniimage.systems.omni import DECODER_RULES
from omniimage.systems.omni_painting import OF_PAINTING
from omniimage.systems.perceptual import late_distances
from omniimage.systems.system import Metrics, Part, System, Totals
from omniimage.vocabulary import Vocabulary

TEXT_ENCODER_RULES: Rules = (
  (r"embed", P(("fsdp", "tensor"), None)),  # (V, D)
  *LAYER_RULES,
)
DENOISER_RULES = DECODER_RULES  # of the same names


class Denoised(NamedTuple):
  """Patches (F, N, C) as they are predicted and as they are, and the times (F,) from which they were predicted."""

  predicted: Array
  clean: Array
  t: Array


@dataclasses.dataclass(frozen=True)
class Rows:
  """A forward pass over some rows of a batch, each of its arrays computed once.

  Attributes:
    params: as the model's methods take them.
    keys: (B,) random keys, one a row.
    remember: what the denoiser attends to, of these rows; for what denoises.
  """

  model: PixelDiffusion
  params: Params
  batch: Batch
  keys: Array
  remember: Callable[["Rows"], Memory] | None = None

  @property
  def slots(self) -> int:
    """I."""
    return self.batch["image_mask"].shape[1]

  @property
  def painted_BI(self) -> Array:
    """bool: the slots whose image is a target."""
    return self.batch["image_mask"] & self.batch["image_is_target"]

  @functools.cached_property
  def images_FHW3(self) -> Array:
    """In [-1, 1]."""
    images = to_float(self.batch["images"])
    return images.reshape(-1, *images.shape[2:])

  @functools.cached_property
  def canvas_FhwZ(self) -> Array:
    return self.model.encode(self.params, self.images_FHW3)

  @functools.cached_property
  def text_FS(self) -> tuple[Array, Array]:
    """Ids of the text that asks for each image, and which of them exist."""
    return image_texts(self.batch, self.model.text_size, self.model.settings.decoder.text_length)

  @functools.cached_property
  def text_FSE(self) -> Array:
    """Its states."""
    return self.model.read(self.params, *self.text_FS)

  @property
  def keeps_text(self) -> Array:
    """(F,) bool: whose text is not left out, for guidance."""
    return self.draw(Stream.DROPPED_TEXT, jax.random.uniform) >= self.model.settings.decoder.drop_text

  @functools.cached_property
  def denoised(self) -> "Denoised":
    """The latents are targets: no gradient reaches what has made them."""
    model = self.model
    clean = model.patchify(jax.lax.stop_gradient(self.canvas_FhwZ))
    noisy, t = noised(self, clean)
    return Denoised(model.predict(self.params, noisy, self.columns, t, self.remember(self)), clean, t)

  @property
  def columns(self) -> int:
    """Patches of the canvas from left to right."""
    return self.canvas_FhwZ.shape[2] // self.model.patch

  def draw(self, stream: Stream, sampler, *shape: int) -> Array:
    """(F, *shape), each row from its own key."""
    return of_images(self.keys, self.slots, stream, sampler, *shape)


class CanvasSystem(System):
  """`config.prior` describes the text encoder, `config.decoder` the denoiser."""

  model_class: ClassVar[type[PixelDiffusion]] = PixelDiffusion
  drawer_class: ClassVar[type[CanvasDrawer]] = CanvasDrawer
  rows_class: ClassVar[type[Rows]] = Rows
  parts: ClassVar = {
    "text_encoder": Part(TEXT_ENCODER_RULES, ("diffusion",)),
    "denoiser": Part(DENOISER_RULES, ("diffusion",)),
  }
  terms = ("diffusion",)
  identity = ("prior", "decoder", "data.image_size")

  @functools.cached_property
  def model(self) -> PixelDiffusion:
    return self.model_class(self.settings, self.text_size, self.settings.scan_layers, self.kernels, self.gather_params)

  @property
  def vocabulary(self) -> Vocabulary:
    return self.model.vocabulary

  def init(self, key: Array) -> Params:
    return self.model.init(key)

  def empty_batch(self, rows: int, size: Size, coded: bool) -> Mapping[str, np.ndarray]:
    return empty_batch(rows, self.settings.data, self.vocabulary, size, coded)

  def sums(self, batch: Batch) -> Totals:
    return dict.fromkeys(self.terms, jnp.sum(batch["image_mask"] & batch["image_is_target"]))

  def losses(
    self, stage: StageSettings, params: Params, batch: Batch, keys: Array, shared: tuple, totals: Totals
  ) -> tuple[Array, Metrics]:
    rows = self.rows_class(self.model, self.model.view(params), batch, keys, self.memory)
    values = {name: self.term(name, rows) / totals[name] for name in self.terms if stage.weight(name)}
    return sum(stage.weight(name) * value for name, value in values.items()), values

  def term(self, name: str, rows: Rows) -> Array:
    """A term of the loss, summed over images."""
    error = diffusion_error(rows) if name == "diffusion" else predicted_distance(rows, self.lpips)
    return jnp.sum(error * rows.painted_BI)

  def memory(self, rows: Rows) -> Memory:
    """What the denoiser attends to: the text, of some images."""
    return rows.model.remember(rows.params, rows.text_FSE, rows.text_FS[1], rows.keeps_text)

  def generator(self, params: Params, text_tokenizer: TextTokenizer, spread: Spread | None = None) -> CanvasDrawer:
    model = self.model_class(self.settings, self.text_size, scan=False)
    return self.drawer_class(model, params, text_tokenizer, spread)

  def columns(
    self, generator: CanvasDrawer, trained: Collection[str], prompts: Sequence[str], images: np.ndarray, seed: int
  ) -> dict[str, Array]:
    """What is painted, once all parts are trained."""
    return {"painted": generator(list(prompts), seed).images} if set(self.parts) <= set(trained) else {}

  def check(self, stage: str):
    super().check(stage)
    check_canvas(self.settings, stage)


def check_canvas(s: Settings, stage: str):
  """SettingsError where the settings ask for what no system of a whole canvas does."""
  require(
    set(s.decoder.layouts) == {(0, 0, 0)},
    f"config.decoder.chunk_rows={s.decoder.chunk_rows}: {s.system} paints the whole canvas at once: set it and "
    "decoder.chunk_offsets to (0,), and decoder.chunk_columns to ()",
  )
  require(
    not s.decoder.reads_gap,
    f"config.decoder.reads_gap: {s.system} is not taught to go far in few steps; set it to False",
  )
  require(
    not s.prior.init and not s.prior.local_layers,
    f"config.prior is the text encoder of {s.system}, which begins from nothing and sees the whole text: set "
    "prior.init to '' and prior.local_layers to ()",
  )
  require(s.data.images_per_row > 0, f"config.stages.{stage} needs images: set data.images_per_row=0 to 1 or more")
  for name in OF_PAINTING:
    share = getattr(s.stages[stage], name)
    require(not share, f"config.stages.{stage}: {s.system} paints from no codes: set {name}={share} to 0")


def image_texts(batch: Batch, text_size: int, length: int) -> tuple[Array, Array]:
  """The last `length` text tokens (F, S) before each image, in its conversation, and which of them exist."""
  places, there = last_text(batch["tokens"], batch["segments"], batch["image_start"], text_size, length)
  B, I, S = places.shape
  tokens = jnp.take_along_axis(batch["tokens"], places.reshape(B, I * S), axis=1)
  return tokens.reshape(B * I, S), there.reshape(B * I, S)


def noised(
  rows: Rows, clean: Array, streams: tuple[Stream, Stream] = (Stream.TIMES, Stream.NOISE)
) -> tuple[Array, Array]:
  """Patches (F, N, C) on their way from noise, and the times (F,) at which they are: logit-normal (Esser et al. 2024,
  arXiv 2403.03206). `streams` of the times and of the noise."""
  s = rows.model.settings.decoder
  t = jax.nn.sigmoid(s.time_mean + s.time_std * rows.draw(streams[0], jax.random.normal))
  noise = rows.draw(streams[1], jax.random.normal, *clean.shape[1:])
  return interpolate(clean, noise, t[:, None, None]), t


def diffusion_error(rows: Rows) -> Array:
  """Flow-matching error (B, I) of the whole canvas."""
  predicted, clean, t = rows.denoised
  return jnp.mean(flow_error(predicted, clean, t[:, None, None]), axis=(1, 2)).reshape(-1, rows.slots)


def predicted_distance(rows: Rows, lpips: Lpips) -> Array:
  """LPIPS (B, I) of what is predicted, of pixels, from `perceptual.LATE` on."""
  predicted, clean, t = rows.denoised
  whole = functools.partial(rows.model.unpatchify, columns=rows.columns)
  return late_distances(lpips, predicted, clean, t[:, None, None], whole).reshape(-1, rows.slots)
