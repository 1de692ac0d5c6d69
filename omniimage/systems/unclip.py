"""Text → an image's embedding → pixels, which is DALL·E 2; what is as there and what is not says `models.unclip`.

Two stages where the paper has three: the embedder learns alone, by CLIP's contrast; then prior and decoder, which do
not see each other, learn side by side from the embeddings of a frozen embedder, with a text encoder for both. Texts and
embeddings are left out of some images, for guidance; the paper's decoder goes without text in half of them.

Axes: B rows, I image slots a row, F = B·I images, E numbers of an embedding.
"""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec as P

from omniimage.distributed.sharding import LAYER_RULES, Rules
from omniimage.models.diffusion_decoder import Memory
from omniimage.models.flow import flow_error
from omniimage.models.unclip import UnClip
from omniimage.sampling.unclip import UnClipDrawer
from omniimage.settings import EmbedderSettings, StageSettings, divides, require
from omniimage.size import Size
from omniimage.streams import Stream
from omniimage.systems.canvas import DENOISER_RULES, TEXT_ENCODER_RULES, CanvasSystem, Rows, noised
from omniimage.systems.canvas_flops import embedder_flops, unclip_flops
from omniimage.systems.omni_flops import LEARNS
from omniimage.systems.system import Part

EMBEDDER_RULES: Rules = (
  (r"texts/embed", P(("fsdp", "tensor"), None)),  # (V, D)
  (r"images/patches/kernel", P(None, "fsdp")),  # (P, D)
  (r"(images/)?embedding/kernel", P("fsdp", None)),  # (D, E)
  (r"log_scale", P()),
  *LAYER_RULES,
)
CONDITIONED_RULES: Rules = ((r"embedding/kernel", P(None, "fsdp")), *DENOISER_RULES)  # (E, 4·D)


class EmbeddedRows(Rows):
  @functools.cached_property
  def embedding_FE(self) -> Array:
    """Of the images, as targets and conditions: no gradient reaches the embedder."""
    return jax.lax.stop_gradient(self.model.embed_images(self.params, self.images_FHW3))


class UnClipSystem(CanvasSystem):
  model_class = UnClip
  rows_class = EmbeddedRows
  drawer_class = UnClipDrawer
  parts: ClassVar = {
    "embedder": Part(EMBEDDER_RULES, ("contrast",)),
    "text_encoder": Part(TEXT_ENCODER_RULES, ("embedding", "diffusion")),
    "embedding_prior": Part(CONDITIONED_RULES, ("embedding",)),
    "denoiser": Part(CONDITIONED_RULES, ("diffusion",)),
  }
  terms = ("contrast", "embedding", "diffusion", "diffusion_lpips")
  identity = ("tokenizer", *CanvasSystem.identity)

  def term(self, name: str, rows: EmbeddedRows) -> Array:
    if name not in ("contrast", "embedding"):
      return super().term(name, rows)
    error_F = contrast(rows) if name == "contrast" else embedding_error(rows)
    return jnp.sum(error_F * rows.painted_BI.reshape(-1))

  def memory(self, rows: EmbeddedRows) -> Memory:
    keep = rows.draw(Stream.DROPPED_TOKENS, jax.random.uniform) >= self.settings.decoder.drop_tokens
    given = rows.text_FSE, rows.text_FS[1], rows.keeps_text, rows.embedding_FE, keep
    return rows.model.remember_both(rows.params, *given)

  def step_flops(self, stage: StageSettings, size: Size) -> float:
    images = stage.rows * self.settings.data.images_per_row
    flops = 0
    if stage.weight("contrast"):
      flops += images * LEARNS * (embedder_flops(self.settings, size) + 2 * images * self.settings.tokenizer.embedding)
    if stage.weight("embedding") or stage.weight("diffusion"):
      flops += images * unclip_flops(self.settings, stage, size)
    return float(flops + self.perceptual_flops(stage, size))

  def check(self, stage: str):
    super().check(stage)
    s, row = self.settings, self.settings.stages[stage]
    require(
      isinstance(s.tokenizer, EmbedderSettings),
      "config.tokenizer makes codes or latents, and unclip learns embeddings: give embedding and prior_depth in place "
      "of levels and decoder_depth",
    )
    divides(s.tokenizer.patch_size, s.decoder.pixels_per_token, "tokenizer.patch_size", "decoder.pixels_per_token")
    require(
      not row.weight("contrast") or (row.accumulate == 1 and s.gather_params == "compiler"),
      f"config.stages.{stage}: the contrast is between all images of a batch: set accumulate={row.accumulate} to 1 and "
      f"gather_params={s.gather_params!r} to 'compiler'",
    )


def contrast(rows: Rows) -> Array:
  """CLIP's loss (F,): each image's cross-entropy over the texts of the batch, and each text's over its images."""
  painted_F = rows.painted_BI.reshape(-1)
  logits_FF = rows.model.similarities(rows.params, rows.images_FHW3, *rows.text_FS)
  logits_FF = jnp.where(painted_F[:, None] & painted_F[None], logits_FF, -jnp.inf)
  logits_FF = jnp.where(jnp.eye(len(painted_F), dtype=bool) & ~painted_F, 0, logits_FF)  # unused slots see themselves
  of_images, of_texts = (jnp.diagonal(jax.nn.log_softmax(logits_FF, axis)) for axis in (1, 0))
  return -(of_images + of_texts) / 2


def embedding_error(rows: EmbeddedRows) -> Array:
  """Flow-matching error (F,) of the prior, from the text alone."""
  model = rows.model
  noisy, t = noised(rows, rows.embedding_FE[:, None], (Stream.EMBEDDING_TIMES, Stream.EMBEDDING_NOISE))
  of_text = jax.lax.stop_gradient(model.embed_texts(rows.params, *rows.text_FS))
  memory = model.expect(rows.params, rows.text_FSE, rows.text_FS[1], rows.keeps_text, of_text)
  predicted = model.predict_embedding(rows.params, noisy[:, 0], t, memory)
  return jnp.mean(flow_error(predicted, rows.embedding_FE, t[:, None]), axis=1)
