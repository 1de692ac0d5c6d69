"""Pictures out of pictures: a part of one again, variations, two in one, more around it, more pixels of it.

Axes: B pictures, h × w visual tokens, H × W pixels.
"""

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from omniimage import streams
from omniimage.errors import UserError
from omniimage.sampling.drawing import Drawing, row_keys
from omniimage.sampling.kept import Kept, Redraw, around, kept, remix, variation
from omniimage.sampling.pictures import Picture, read_part, read_picture, read_whole
from omniimage.sampling.prompts import NO_WORDS, pad, read_turns
from omniimage.sampling.tokens import TokenDrawer
from omniimage.streams import Stream


class Redrawer(TokenDrawer):
  """What draws from pictures, beside what draws from prompts. `draw` of the drawer takes `kept`."""

  def sized(self, named: str) -> "Redrawer":
    """What draws another size with the same parameters. SettingsError where it cannot be drawn.

    Args:
      named: width:height, one of the run's; or pixels, as 128x64, whether it was trained or not.
    """
    other = type(self)(self.settings.drawing(named), {}, self.text_tokenizer, self.spread)
    other.params = self.params
    return other

  def inpaint(
    self, image: Picture | str, again: np.ndarray, prompt: str = "", n: int = 1, seed: int = 0, **changes
  ) -> Drawing:
    """`n` times a picture with a part of it drawn again under a prompt of the whole; a str is its path.

    Visual tokens and patches without a pixel of that part stay as they are: the pixels of these patches are the given
    ones, at the model's size.

    Args:
      again: the part, (height, width) bool of any size, of the picture as it is read.
      prompt: "" for none, as training has seen it in `data.drop_text` of the conversations.

    UserError where nothing is to be drawn again, or the prompt cannot be read.
    """
    redraw = Redraw(read_picture(as_picture(image), self.settings), read_part(again, self.settings))
    return self._redrawn([redraw] * n, prompt, seed, changes)

  def vary(
    self, image: Picture | str, prompt: str = "", n: int = 1, seed: int = 0, keep: float = 0.5, **changes
  ) -> Drawing:
    """`n` variations of a picture; a str is its path. Of its visual tokens a share of `keep`, other ones each time,
    stay; the rest are drawn again under the prompt, and the picture is painted anew. `prompt` as of `inpaint`."""
    picture, size = read_picture(as_picture(image), self.settings), self.settings.buckets[0]
    rng = streams.generator(Stream.VARIATIONS, seed)
    return self._redrawn([variation(picture, size, keep, rng) for _ in range(n)], prompt, seed, changes)

  def remix(
    self,
    first: Picture | str,
    second: Picture | str,
    prompt: str = "",
    n: int = 1,
    seed: int = 0,
    keep: float = 0.5,
    **changes,
  ) -> Drawing:
    """`n` pictures out of two; a str is a path. As `vary`, but what stays is of the one or the other, half of each."""
    pictures, size = [read_picture(as_picture(one), self.settings) for one in (first, second)], self.settings.buckets[0]
    rng = streams.generator(Stream.VARIATIONS, seed)
    return self._redrawn([remix(*pictures, size, keep, rng) for _ in range(n)], prompt, seed, changes)

  def outpaint(
    self,
    image: Picture | str,
    top: int = 0,
    right: int = 0,
    bottom: int = 0,
    left: int = 0,
    prompt: str = "",
    n: int = 1,
    seed: int = 0,
    **changes,
  ) -> Drawing:
    """`n` pictures that go on beyond the edges of one; a str is its path. `prompt` as of `inpaint`.

    What stays of the picture is as `inpaint` leaves it. As much taken off as is added moves the frame (panning), and
    then the size is that of the run.

    Args:
      top, right, bottom, left: pixels by which the frame is moved outwards, at the model's size, in whole visual
        tokens; below zero inwards.

    UserError where nothing would stay or nothing be added; SettingsError where the size cannot be drawn.
    """
    picture, side = read_picture(as_picture(image), self.settings), self.settings.decoder.pixels_per_token
    codes = np.asarray(self.encode(picture[None]))[0]
    redraw = around(picture, codes, (top, right, bottom, left), side)
    return self._of_pixels(*redraw.again.shape)._redrawn([redraw] * n, prompt, seed, changes)

  def upscale(self, image: Picture | str, prompt: str = "", n: int = 1, seed: int = 0, **changes) -> Drawing:
    """`n` times a picture with more pixels: its visual tokens, painted as finely as the run has learnt; a str is its
    path. `prompt` as of `inpaint`. UserError where the run paints no finer than it reads."""
    times, patch = self.omni.reduction, self.settings.tokenizer.patch_size
    if times == 1:
      raise UserError(
        "this run paints as many pixels as its tokenizer reads; to upscale, train with decoder.pixels_per_token="
        f"{2 * patch} or more, of which the tokenizer reads {patch}"
      )
    picture = read_whole(as_picture(image), self.settings, patch)
    finer = picture.repeat(times, axis=0).repeat(times, axis=1)  # of which the tokenizer reads the picture itself
    other = self._of_pixels(*finer.shape[:2])
    codes = other.encode(np.stack([finer] * n))
    tokens, lengths = other._said(prompt, n)
    return other._repaint(other.params, tokens, lengths, codes, row_keys(seed, n), sampling=other.sampling(changes))

  def _of_pixels(self, height: int, width: int) -> "Redrawer":
    """What draws so many pixels: itself, if it does."""
    return self if (height, width) == self.settings.buckets[0].pixels else self.sized(f"{width}x{height}")

  def _redrawn(self, redraws: Sequence[Redraw], prompt: str, seed: int, changes: dict) -> Drawing:
    sampling, n = self.sampling(changes), len(redraws)
    return self._drawn(*self._said(prompt, n), row_keys(seed, n), sampling, kept=self._kept(redraws))

  def _said(self, prompt: str, n: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` times a prompt, or none, up to where codes begin, as of `pad`."""
    v = self.omni.vocabulary
    said = read_turns([prompt or NO_WORDS], self.settings, self.text_tokenizer, v).tokens
    return pad([[*said, *self._opening]] * n, v)

  def _kept(self, redraws: Sequence[Redraw]) -> Kept:
    if all(redraw.codes is not None for redraw in redraws):
      return kept(redraws, np.stack([redraw.codes for redraw in redraws]), self.settings)
    codes = self.encode(np.stack([redraw.picture for redraw in redraws]))
    seconds = {i: redraw.second for i, redraw in enumerate(redraws) if redraw.second is not None}
    if seconds:
      pictures, of_second = (np.stack(each) for each in zip(*seconds.values()))
      rows = np.array(list(seconds))
      codes = codes.at[rows].set(jnp.where(of_second, self.encode(pictures), codes[rows]))
    return kept(redraws, codes, self.settings)


def as_picture(image: Picture | str) -> Picture:
  return Path(image) if isinstance(image, str) else image
