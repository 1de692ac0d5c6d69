"""Ours: image tokenizer, transformer and diffusion decoder, `omniimage.models.omni`, trained as one.

Axes: B rows, L positions, I image slots a row.
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from omniimage.data.batches import Batch, empty_batch
from omniimage.data.text import TextTokenizer
from omniimage.distributed.mesh import batch_axes, batch_sharding
from omniimage.distributed.sharding import LAYER_RULES, Rules, unstacked_shardings
from omniimage.distributed.spread import Spread
from omniimage.interop.start import PriorStart
from omniimage.models.compute_type import compute_type
from omniimage.models.omni import Omni
from omniimage.sampling.autoregressive import Written, sample_token
from omniimage.sampling.diffusion import blank, paint_chunk
from omniimage.sampling.generate import Generator
from omniimage.sampling.grammar import Grammar
from omniimage.sampling.prompts import to_float
from omniimage.settings import CODEBOOKS, CodebookSettings, StageSettings, require
from omniimage.size import Size
from omniimage.streams import Stream, fold
from omniimage.systems import omni_flops, perceptual
from omniimage.systems.omni_losses import TERMS, Pass, weighted_sum
from omniimage.systems.omni_painting import OF_PAINTING
from omniimage.systems.system import ABILITIES, Metrics, Params, Part, Sampler, System, Totals
from omniimage.vocabulary import Vocabulary

# D width, E the tokenizer's as the prior's adapter reads it, V text table, C codebook, P pixels of a patch, Z quantizer
# channels, T time features. P, Z and T are small and odd, and never sharded.

TOKENIZER_RULES: Rules = (
  (r"encoder/patches/kernel|decoder/codes/kernel", P(None, "fsdp")),  # (P, D) and (Z, D)
  (r"encoder/codes/kernel|decoder/pixels/kernel", P("fsdp", None)),  # (D, Z) and (D, P)
  (r"quantizer/codebook", P()),  # (C, Z), where it is learnt: every device searches all of it for its own images
  *LAYER_RULES,
)

PRIOR_RULES: Rules = (
  (r"embed/(text|image)", P(("fsdp", "tensor"), None)),  # (V, D) and (C, D)
  (r"head/(text|image)", P("fsdp", "tensor")),  # (D, V) and (D, C)
  (r"adapter/hidden/kernel", P("fsdp", "tensor")),  # (E, D)
  (r"adapter/out/kernel", P("tensor", "fsdp")),  # (D, D)
  (r"grid/out/kernel", P(None, "fsdp")),  # (2·PAIRS, D)
  *LAYER_RULES,
)

DECODER_RULES: Rules = (
  (r"(patches|tokens|(time|gap)/hidden)/kernel", P(None, "fsdp")),  # (P, D), (Z, D) and (T, D)
  (r"(text|time/out|gap/out|(final_)?modulation|pixels)/kernel", P("fsdp", None)),  # (D, D), (D, 6D), (D, 2D), (D, P)
  (r"null_(tokens|text)|layers/modulation", P()),  # (D) and (6, D)
  *LAYER_RULES,
)

OF_IMAGES = ("image", "diffusion", "pixel", "entropy")  # terms that need some
OF_PIXELS = ("diffusion", "pixel", "entropy")  # that codes alone do not give
OF_PRIOR = ("text", "image", "diffusion")  # whose conversations it reads


class OmniSystem(System):
  parts: ClassVar = {
    "tokenizer": Part(TOKENIZER_RULES, ("pixel", "diffusion")),  # and by what goes with these
    "prior": Part(PRIOR_RULES, OF_PRIOR, ("prior.input_images", "prior.grid_embedding")),
    "decoder": Part(
      DECODER_RULES, ("diffusion",), ("decoder.chunk_rows", "decoder.chunk_columns", "decoder.chunk_offsets")
    ),
  }
  terms = tuple(TERMS)
  modifiers = ("z",)  # weight of log² Z beside each cross-entropy
  identity = ("tokenizer", "prior", "decoder", "data.image_size")
  abilities = frozenset(ABILITIES)
  encoder = "tokenizer"

  @functools.cached_property
  def omni(self) -> Omni:
    return Omni(self.settings, self.text_size, self.settings.scan_layers, self.kernels, self.gather_params)

  @property
  def vocabulary(self) -> Vocabulary:
    return self.omni.vocabulary

  def init(self, key: Array) -> Params:
    return self.omni.init(key)

  def starts(self) -> dict[str, PriorStart]:
    prior = self.settings.prior
    return {"prior": PriorStart(prior, self.vocabulary)} if prior.init else {}

  def empty_batch(self, rows: int, size: Size, coded: bool) -> Mapping[str, np.ndarray]:
    return empty_batch(rows, self.settings.data, self.vocabulary, size, coded)

  def sums(self, batch: Batch) -> Totals:
    is_code = batch["tokens"] >= self.vocabulary.codes
    return {name: term.weight(batch, is_code) for name, term in TERMS.items()}

  def losses(
    self, stage: StageSettings, params: Params, batch: Batch, keys: Array, shared: Array, totals: Totals
  ) -> tuple[Array, Metrics]:
    lpips = self.lpips if perceptual.compares(stage) else None
    return weighted_sum(Pass(self.omni, stage, self.omni.view(params), batch, keys, shared, lpips), totals)

  def needs_pixels(self, stage: StageSettings) -> bool:
    seen = OF_PIXELS + OF_PRIOR * self.omni.reads_features
    return any(map(stage.weight, seen)) or self.encoder in stage.moves

  def encode(self, params: Params, images: Array) -> Array:
    read = self.omni.shrink(to_float(images))
    return self.omni.encode(self.omni.view({self.encoder: params[self.encoder]}), read).codes

  def shared_draws(self, key: Array) -> Array:
    """Which of the decoder's chunk layouts an update uses."""
    return jax.random.randint(fold(key, Stream.LAYOUT), (), 0, len(self.settings.decoder.chunk_rows))

  def watches(self, stage: StageSettings) -> tuple[str, ...]:
    """The tokenizer, where its codes are targets: how fast they move under the prior."""
    follows = stage.weight("image") or stage.weight("diffusion")
    return ("tokenizer",) if follows and "tokenizer" in stage.moves else ()

  def observed(self, old: Params, new: Params, batch: Batch, totals: Totals) -> Metrics:
    """`codes_changed`: share of the image codes that an update of the tokenizer has changed."""
    images = self.omni.shrink(to_float(batch["images"]))
    before, after = (self.omni.encode(self.omni.view(params), images).codes for params in (old, new))
    changed = jnp.mean(before != after, axis=(-2, -1))
    return {"codes_changed": jnp.sum(changed * batch["image_mask"]) / totals["pixel"]}

  def step_flops(self, stage: StageSettings, size: Size) -> float:
    flops = omni_flops.step_flops(self.settings, stage, self.text_size, size, self.reads_codes(stage))
    return flops + self.perceptual_flops(stage, size)

  def generator(self, params: Params, text_tokenizer: TextTokenizer, spread: Spread | None = None) -> Generator:
    return Generator(self.settings, params, text_tokenizer, spread)

  def columns(
    self, generator: Generator, trained: Collection[str], prompts: Sequence[str], images: np.ndarray, seed: int
  ) -> dict[str, Array]:
    """The tokenizer's reconstruction, sampled tokens as the tokenizer renders them, and the decoder's picture."""
    columns = {}
    if "tokenizer" in trained:
      columns["reconstruction"] = generator.reconstruct(images)
    if {"tokenizer", "prior"} <= set(trained):
      drawing = generator(list(prompts), seed)
      columns["sampled tokens"] = drawing.rendering
      if "decoder" in trained:
        columns["painted"] = drawing.images
    return columns

  def sampler(self, mesh: Mesh, rows: int, length: int) -> Sampler:
    """One code of every row, without guidance; parameters in the compute type, divided over `tensor`."""
    settings, dtype, omni = self.settings, jnp.dtype(compute_type(self.settings.compute_dtype)), self._to_sample

    def abstract(key):
      params = jax.tree.map(lambda x: x.astype(dtype), omni.view({"prior": omni.init(key)["prior"]}))
      caches = omni.prior.apply({"params": params["prior"]}, rows, length, method="init_caches")
      hidden, seen = jnp.zeros((rows, settings.prior.width), dtype), jnp.zeros((rows, length), jnp.int32)
      return params, Written(hidden, caches, seen, Grammar.start(rows)), jax.random.split(key, rows), jnp.int32(0)

    def step(params, written, keys, index):
      return sample_token(omni, params, written, index, keys, settings.sampling, codes_only=True)

    arguments = params, written, _, _ = jax.eval_shape(abstract, jax.random.key(0))
    by_rows, by_heads = batch_sharding(mesh), NamedSharding(mesh, P(batch_axes, "tensor"))
    places = jax.tree.map(lambda _: by_rows, written)
    shardings = (
      {"prior": unstacked_shardings(mesh, self.parts["prior"].rules, "prior", params["prior"])},
      dataclasses.replace(places, caches=jax.tree.map(lambda _: by_heads, written.caches)),
      by_rows,
      NamedSharding(mesh, P()),
    )
    flops = rows * omni_flops.token_flops(settings, self.text_size, length, kinds=("image",))
    return Sampler(step, arguments, shardings, flops, times=settings.buckets[0].tokens)

  def painter(self, mesh: Mesh, rows: int) -> Sampler:
    """As `sampler`: a chunk of every row, the last, which sees the most."""
    settings, dtype, omni = self.settings, jnp.dtype(compute_type(self.settings.compute_dtype)), self._to_sample
    size, s = settings.buckets[0], settings.decoder

    def abstract(key):
      params = jax.tree.map(lambda x: x.astype(dtype), omni.view({"decoder": omni.init(key)["decoder"]}))
      features = jnp.zeros((rows, size.rows, size.columns, omni.tokenizer.quantizer.channels), dtype)
      texts = jnp.zeros((rows, s.text_length, settings.prior.width), dtype), jnp.ones((rows, s.text_length), bool)
      canvas = blank(omni, params, features, *texts, settings.sampling)
      return params, canvas, jnp.int32(0), jax.random.split(key, rows)

    def step(params, canvas, chunk, keys):
      return paint_chunk(omni, params, canvas, chunk, keys, settings.sampling)

    arguments = params, canvas, _, _ = jax.eval_shape(abstract, jax.random.key(0))
    by_rows, over_heads = batch_sharding(mesh), NamedSharding(mesh, P(batch_axes, "tensor"))
    places = jax.tree.map(lambda _: by_rows, canvas)
    shardings = (
      {"decoder": unstacked_shardings(mesh, self.parts["decoder"].rules, "decoder", params["decoder"])},
      places.replace(caches=jax.tree.map(lambda _: over_heads, canvas.caches)),
      NamedSharding(mesh, P()),
      by_rows,
    )
    flops = rows * omni_flops.chunk_flops(settings, canvas.layout, size)
    return Sampler(step, arguments, shardings, flops, times=canvas.layout.count)

  @property
  def _to_sample(self) -> Omni:
    return dataclasses.replace(self.omni, scan=False, gather_params=None)

  def check(self, stage: str):
    super().check(stage)
    row = self.settings.stages[stage]
    self._check_codebook(stage)
    pictures = [name for name in OF_IMAGES if row.weight(name)]
    require(
      not pictures or self.settings.data.images_per_row > 0,
      f"config.stages.{stage}: weights.{' and weights.'.join(pictures)} need images: set data.images_per_row=0 to 1 or "
      "more",
    )
    self._check_painting(stage)

  def _check_painting(self, stage: str):
    """SettingsError if a stage has settings of what is painted from, and paints nothing or cannot."""
    row, place = self.settings.stages[stage], f"config.stages.{stage}"
    for name in OF_PAINTING:
      share = getattr(row, name)
      require(
        not share or row.weight("diffusion") > 0,
        f"{place}: {name}={share} is for painting: give weights.diffusion a weight",
      )
    few = f"{place}: few_steps={row.few_steps} is"
    require(
      not row.few_steps or self.settings.decoder.reads_gap,
      f"{few} for a painter that reads how far its steps go: set decoder.reads_gap to True",
    )
    require(
      not row.few_steps or self.settings.gather_params == "compiler",
      f"{few} of a forward mode that gathering by hand has not: set gather_params to compiler",
    )

  def _check_codebook(self, stage: str):
    """SettingsError if a stage asks of the codebook what it has not, or moves the tokenizer without teaching it."""
    s, row, place = self.settings, self.settings.stages[stage], f"config.stages.{stage}"
    learnt = isinstance(s.tokenizer, CodebookSettings)
    require(
      not row.weight("entropy") or learnt,
      f"{place}: weights.entropy={row.weight('entropy')} is for a codebook that is learnt, and that of "
      f"tokenizer.levels is fixed: set it to 0, or give tokenizer.quantizer one of {', '.join(CODEBOOKS)}",
    )
    require(
      not row.weight("entropy") or (row.accumulate == 1 and s.gather_params == "compiler"),
      f"{place}: weights.entropy is of all codes of a batch together: set accumulate={row.accumulate} to 1 and "
      f"gather_params={s.gather_params!r} to 'compiler'",
    )
    require(
      not learnt or "tokenizer" not in row.moves or row.weight("pixel") > 0,
      f"{place}: rates.tokenizer={row.rates.get('tokenizer')} moves a codebook, whose own loss is part of "
      "weights.pixel: give it a weight, or set the rate to 0",
    )
