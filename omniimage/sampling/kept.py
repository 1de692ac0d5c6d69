"""What of a picture stays while the rest is drawn again: variations, remixes, inpainting.

The prior writes all codes in raster order, and where one is kept it is written instead of being drawn: what is drawn
sees the kept codes before it. The painter starts every patch from noise, and what it predicts for a kept one is
replaced by the patch itself, so that it ends there exactly and what is painted fits to it (after RePaint, Lugmayr et
al. 2022).
"""

import dataclasses
from collections.abc import Sequence

import flax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.errors import UserError
from omniimage.models.layers import patchify
from omniimage.settings import Settings
from omniimage.size import Size
from omniimage.vocabulary import Vocabulary

NOT_YET = 127  # gray, of what is not there yet


@dataclasses.dataclass(frozen=True, eq=False)
class Redraw:
  """A picture and what of it is drawn again.

  Attributes:
    picture: (H, W, 3) uint8, of the size that is drawn.
    again: (H, W) bool. A visual token, and a patch of the painter, is drawn again if any of its pixels is.
    paints_all: whether all pixels are painted anew, from the tokens that stay and those that are drawn.
    second: another picture, and (h, w) bool: the visual tokens that are its, of those that stay.
    codes: (h, w) int32, those that stay; None: those of the picture.
  """

  picture: np.ndarray
  again: np.ndarray
  paints_all: bool = False
  second: tuple[np.ndarray, np.ndarray] | None = None
  codes: np.ndarray | None = None

  def __post_init__(self):
    if not self.again.any():
      raise UserError("nothing of the picture is to be drawn again; mark a part of it")


def variation(picture: np.ndarray, size: Size, keep: float, rng: np.random.Generator) -> Redraw:
  """Of a picture of the size that is drawn, a share of `keep` of the visual tokens, which ones the dice say. UserError
  where that is none."""
  if not 0 <= keep < 1:
    raise UserError(f"keep={keep}: the share of visual tokens that stay must be from 0 to less than 1")
  again = (rng.permutation(size.tokens) >= round(keep * size.tokens)).reshape(size.rows, size.columns)
  again[np.unravel_index(rng.integers(size.tokens), again.shape)] |= not again.any()
  scale = picture.shape[0] // size.rows
  return Redraw(picture, again.repeat(scale, axis=0).repeat(scale, axis=1), paints_all=True)


def remix(first: np.ndarray, second: np.ndarray, size: Size, keep: float, rng: np.random.Generator) -> Redraw:
  """As a `variation` of the first picture, but each of the visual tokens that stay is of either picture, by a coin."""
  of_second = rng.random((size.rows, size.columns)) < 0.5
  return dataclasses.replace(variation(first, size, keep, rng), second=(second, of_second))


def around(picture: np.ndarray, codes: np.ndarray, sides: tuple[int, int, int, int], side: int) -> Redraw:
  """A picture in a frame that was moved, of which all is drawn that it does not fill.

  Args:
    codes: (h, w) of the picture.
    sides: pixels by which the top, right, bottom and left of the frame go outwards, or, below zero, inwards.
    side: pixels of a visual token, along one side.

  UserError where these are no whole visual tokens, or nothing stays.
  """
  named = ", ".join(f"{name}={by}" for name, by in zip(("top", "right", "bottom", "left"), sides))
  if any(by % side for by in sides):
    raise UserError(f"{named}: give multiples of the {side} pixels of a visual token")
  top, right, bottom, left = (by // side for by in sides)
  h, w = codes.shape
  rows, columns = slice(max(0, -top), h - max(0, -bottom)), slice(max(0, -left), w - max(0, -right))
  if rows.start >= rows.stop or columns.start >= columns.stop:
    raise UserError(f"{named} leaves nothing of the picture; take less off")
  added = [(max(0, top), max(0, bottom)), (max(0, left), max(0, right))]
  again = np.pad(np.zeros_like(codes[rows, columns], bool), added, constant_values=True)
  stays = picture.reshape(h, side, w, side, 3)[rows, :, columns]
  pixels = np.pad(stays, [added[0], (0, 0), added[1], (0, 0), (0, 0)], constant_values=NOT_YET)
  return Redraw(
    pixels.reshape(again.shape[0] * side, again.shape[1] * side, 3),
    again.repeat(side, axis=0).repeat(side, axis=1),
    codes=np.pad(codes[rows, columns], added),
  )


@flax.struct.dataclass
class Kept:
  """Of B pictures of h × w visual tokens and N patches of the painter, of P numbers each.

  Attributes:
    codes: (B, h·w) int32, their codes, −1 where one is drawn again.
    patches: (B, N, P) in [-1, 1].
    stays: (B, N) bool, of the patches.
  """

  codes: Array
  patches: Array
  stays: Array

  def tokens(self, vocabulary: Vocabulary, first: int | Array = 0, count: int | None = None) -> Array:
    """(B, count) as tokens, from place `first` on, −1 where one is drawn."""
    codes = self.codes[:, first : first + count] if count else self.codes
    return jnp.where(codes < 0, -1, vocabulary.codes + codes)


def kept(redraws: Sequence[Redraw], codes: Array, settings: Settings) -> Kept:
  """What stays of pictures with their codes (B, h, w)."""
  (B, h, w), patch_size = codes.shape, settings.decoder.patch_size
  again = np.stack([one.again for one in redraws])
  of_code = again.reshape(B, h, again.shape[1] // h, w, again.shape[2] // w).any(axis=(2, 4))
  of_patch = patchify(again[..., None], patch_size).any(axis=-1)
  paints_all = np.array([one.paints_all for one in redraws])
  images = np.stack([one.picture for one in redraws]).astype(np.float32) / 127.5 - 1
  return Kept(
    jnp.where(of_code, -1, codes).reshape(B, h * w).astype(jnp.int32),
    patchify(jnp.asarray(images), patch_size),
    jnp.asarray(~(of_patch | paints_all[:, None])),
  )
