"""From prompts and conversations to pictures and texts with a trained model: many at once, or one as it comes."""

import functools
import os
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from omniimage.data.conversation import Turn
from omniimage.data.text import TextTokenizer
from omniimage.distributed.spread import Spread
from omniimage.errors import UserError
from omniimage.models.adapter import InputFeatures
from omniimage.models.layers import patchify, unpatchify
from omniimage.models.omni import Omni, Params
from omniimage.sampling.autoregressive import prefill, sample_tokens
from omniimage.sampling.context import Context, encode_images, place_codes, shown_features
from omniimage.sampling.diffusion import paint, text_conditions
from omniimage.sampling.drawing import Drawing, keys_of, row_keys
from omniimage.sampling.events import Chunk, Codes, Image, TextEnd, turns_of
from omniimage.sampling.kept import Kept, Redraw
from omniimage.sampling.kernels import arranged, compiled, over_rows
from omniimage.sampling.pictures import Picture
from omniimage.sampling.pieces import Pieces
from omniimage.sampling.prompts import (
  BUCKET,
  Part,
  input_features,
  pad,
  read_turns,
  room_for_text,
  to_float,
)
from omniimage.sampling.redrawing import Redrawer, as_picture
from omniimage.sampling.session import WORDS, Answer, Session, form_of, unguided, words_of
from omniimage.sampling.together import Together
from omniimage.sampling.tokens import draw_codes
from omniimage.settings import SamplingSettings, Settings
from omniimage.streams import Stream

GRAY = 0.0  # what is still to come, in [-1, 1]


class Generator(Redrawer):
  """Draws and answers. Compiles once for each number of prompts and bucket of lengths, for sessions once a bucket."""

  def __init__(self, settings: Settings, params: Params, text_tokenizer: TextTokenizer, spread: Spread | None = None):
    """`params` as stored (stacked): {tokenizer, prior, decoder}. With `spread`, batches are over its devices; sessions,
    which are of one picture, are not."""
    super().__init__(settings, params, text_tokenizer, draw_prompts, repaint, spread)
    self._write = over_rows(functools.partial(write_prompts, self.omni), spread, ("new_tokens", "sampling"))
    self._preview = compiled(functools.partial(render_written, self.omni))
    self._pieces = Pieces(self.omni, spread)

  @property
  def patch_size(self) -> int:
    return self.settings.decoder.patch_size

  @classmethod
  def from_workdir(cls, path: str | os.PathLike, aspect_ratio: str | None = None) -> "Generator":
    """That of a trained run's last checkpoint. UserError where there is none.

    Args:
      aspect_ratio: width:height of what is drawn, one of the run's, or pixels, as 128x64; None: the run's first.
    """
    from omniimage.workdir import Workdir, load_run  # with what reads checkpoints, which drawing does without

    named = Workdir(path).read_settings().system
    if named != "omni":
      raise UserError(f"{path} is a run of config.system={named!r}; omniimage.systems.open_generator draws with it")
    run = load_run(path)
    settings = run.settings if aspect_ratio is None else run.settings.drawing(aspect_ratio)
    return cls(settings, run.params, run.text_tokenizer)

  @classmethod
  def from_pretrained(cls, path: str | os.PathLike, aspect_ratio: str | None = None) -> "Generator":
    """As `from_workdir`, of a folder that launch.export has made."""
    return cls.from_workdir(path, aspect_ratio)

  def encode(self, images: Array) -> Array:
    """Codes (B, h, w) of images (B, H, W, 3), uint8 or float in [-1, 1]."""
    return self._pieces.encode(self.params, to_float(images))[0]

  def session(
    self, turns: Part | Sequence[Part], seed: int = 0, answer: str = "image", context: Context | None = None, **changes
  ) -> Session:
    """Opens a conversation, to be answered by the assistant, event by event (`omniimage.sampling.events`).

    A prompt is answered with the image that `self([prompt], seed, **changes)` draws. Nothing is computed before the
    first event is asked for.

    Args:
      turns: texts and pictures in order, or one of them: files (a path that is no str), images of Pillow or arrays
        (…, …, 3) uint8, which come to the model's size as those of the data do. They are the user's; what the assistant
        has said and shown before is TextTurn(text, is_target=True) and ImageTurn(image, is_target=True), its image in
        pixels or as the codes (h, w) int32 that it has drawn. The user's may be codes if the prior reads no more.
      answer: "image", "text" (up to where it ends or an image begins), "free" (texts and images until the model ends
        its turn) or "image_first" (as "free", begun with an image).
      context: of this generator and its parameters, of conversations that begin as this one: what it has read of it is
        not read again. One session at a time has it.
      changes: as above.

    Raises UserError where the model cannot read the turns, SettingsError where changes cannot be.
    """
    sampling, form = self.sampling(changes), form_of(answer)
    encoded = read_turns(turns, self.omni.settings, self.text_tokenizer, self.omni.vocabulary, form.image_first)
    answering = Answer(self.omni, self._pieces, self.text_tokenizer, row_keys(seed, 1), sampling)
    return Session(answering.events(encoded, form, context or self.context()))

  def context(self) -> Context:
    """An empty one, for the parameters of now."""
    return Context(self.omni, self._pieces, self.params)

  def chat(self, turns: Part | Sequence[Part], seed: int = 0, answer: str = "free", **changes) -> list[Turn]:
    """What the assistant says and shows, images in pixels; arguments as of `session`."""
    return turns_of(self.session(turns, seed, answer, **changes))

  def caption(self, image: Picture | str, seed: int = 0, **changes) -> str:
    """What the model writes about a picture; a str is its path."""
    events = self.session([as_picture(image)], seed, "text", **changes)
    return next(event.text for event in events if isinstance(event, TextEnd))

  def edit(self, image: Picture | str, instruction: str, seed: int = 0, **changes) -> np.ndarray:
    """A picture (H, W, 3) uint8 of the model's size, changed as the instruction says; a str is the path of the one
    before."""
    (edited,) = self.chat([as_picture(image), instruction], seed, "image", **changes)
    return edited.image

  def draw_after(self, conversations: Sequence[Sequence[Part]], seeds: Sequence[int], **changes) -> Drawing:
    """The image that follows each conversation, all at once: that of its own session with the seed of its own."""
    sampling = self.sampling(changes)
    rows, shown = self._read(conversations, image_next=True)
    tokens, lengths = pad([[*row, *self._opening] for row in rows], self.omni.vocabulary)
    return self._drawn(tokens, lengths, keys_of(seeds), sampling, shown)

  def draw_together(
    self,
    conversations: Sequence[Sequence[Part]],
    seeds: Sequence[int],
    rows: int = 1,
    places: int = 1,
    redraws: Sequence[Redraw] = (),
    **changes,
  ) -> Iterator[list[Codes | Chunk | Image]]:
    """`draw_after` event by event: of each step, the event of each conversation. Images that they show are encoded at
    once; nothing else is computed before it is asked for.

    Args:
      rows, places: the batch is filled up to so many conversations, and each of them to so many tokens, which are not
        given; so that few shapes are compiled.
      redraws: of each, where a part of a picture is drawn again.
    """
    sampling, given = self.sampling(changes), len(conversations)
    spare = max(0, rows - given)
    tokens, shown = self._read(conversations, image_next=True)
    tokens, shown = tokens + tokens[:1] * spare, shown + shown[:1] * spare
    prompts = pad([[*row, *self._opening] for row in tokens], self.omni.vocabulary, places)
    keys = keys_of([*seeds, *[seeds[0]] * spare])
    stays = self._kept([*redraws, *redraws[:1] * spare]) if redraws else None
    drawing = Together(self.omni, self._pieces, self.params, keys, sampling, stays)
    steps = drawing.events(*self._beside(*prompts, shown))
    return (events[:given] for events in steps)

  def write_after(self, conversations: Sequence[Sequence[Part]], seeds: Sequence[int], **changes) -> list[str]:
    """The text that follows each conversation, up to where it ends or an image begins, all at once: that of its own
    session with the seed of its own."""
    v, settings = self.omni.vocabulary, self.omni.settings
    rows, shown = self._read(conversations, image_next=False)
    tokens, lengths = pad(rows, v)
    rooms = room_for_text(settings) - lengths
    new_tokens = -(-max(rooms) // BUCKET) * BUCKET
    sampling = unguided(self.sampling(changes))
    features = input_features(tokens, shown, v)
    drawn = self._write(
      self.params, tokens, lengths, rooms, keys_of(seeds), features, new_tokens=int(new_tokens), sampling=sampling
    )
    texts = (words_of(own[:room].tolist(), v)[0] for own, room in zip(np.asarray(drawn), rooms))
    return [self.text_tokenizer.decode(words) for words in texts]

  def preview(self, codes: np.ndarray) -> np.ndarray:
    """The tokenizer's rendering (H, W, 3) of the first n codes (n,) of an image; the places of the others are gray."""
    size = self.omni.settings.buckets[0]
    padded = np.pad(codes, (0, size.tokens - len(codes))).reshape(size.rows, size.columns)
    return np.asarray(self._preview(self.params, padded, np.int32(len(codes))))

  def _read(
    self, conversations: Sequence[Sequence[Part]], image_next: bool
  ) -> tuple[list[np.ndarray], list[tuple[np.ndarray, ...]]]:
    """The tokens of each, its images encoded with those of all others, and what `input_features` puts there."""
    v = self.omni.vocabulary
    encoded = [read_turns(turns, self.omni.settings, self.text_tokenizer, v, image_next) for turns in conversations]
    all_images = iter(encode_images(self._pieces, self.params, [image for one in encoded for image in one.images]))
    images = [[next(all_images) for _ in one.images] for one in encoded]
    tokens = [place_codes(one, own, v.codes) for one, own in zip(encoded, images)]
    return tokens, list(map(shown_features, encoded, images))


def render_written(omni: Omni, params: Params, codes: Array, written: Array) -> Array:
  """The tokenizer's rendering (H, W, 3) of the first `written` of the codes (h, w), zeros given to it for the others,
  whose places are gray."""
  h, w = codes.shape
  there = jnp.arange(h * w) < written
  features = jnp.where(there.reshape(h, w, 1), omni.features(params, codes), 0.0)
  patch_size = omni.settings.tokenizer.patch_size
  patches = patchify(jnp.clip(omni.render(params, features), -1, 1), patch_size)
  return unpatchify(jnp.where(there[:, None], patches, GRAY), patch_size, w)


def draw_prompts(
  omni: Omni,
  params: Params,
  tokens: Array,
  lengths: Array,
  bare: Array,
  bare_lengths: Array,
  keys: Array,
  features: tuple[InputFeatures | None, InputFeatures | None] = (None, None),
  kept: Kept | None = None,
  *,
  sampling: SamplingSettings,
) -> Drawing:
  """Prompts → drawing; arguments as of `draw_codes`. Pure; `params` unstacked."""
  codes, hidden = draw_codes(omni, params, tokens, lengths, bare, bare_lengths, keys, features, sampling, kept)
  return _finish(omni, params, tokens, lengths, hidden, codes, keys, sampling, kept)


def write_prompts(
  omni: Omni,
  params: Params,
  tokens: Array,
  lengths: Array,
  rooms: Array,
  keys: Array,
  features: InputFeatures | None = None,
  *,
  new_tokens: int,
  sampling: SamplingSettings,
) -> Array:
  """Prompts (B, P), with features as of `prefill`, → tokens (B, new_tokens) of text behind each, until each row has a
  special among them or no more room, of `rooms` (B,) tokens. Pure; `params` unstacked."""
  B, P = tokens.shape
  written, _ = prefill(omni, params, tokens, lengths, new_tokens, features)
  nothing = jnp.full((B, new_tokens), omni.vocabulary.pad, jnp.int32)
  given = arranged(params, B)

  def unfinished(carry):
    first, ended, *_ = carry
    return ~jnp.all(ended | (first >= rooms))

  def write(carry):
    first, ended, written, texts = carry
    numbers = first + jnp.arange(WORDS)
    written, drawn = sample_tokens(omni, given, written, P, numbers, keys, sampling, stream=Stream.WORDS)
    ended |= jnp.any(drawn >= omni.vocabulary.text_size, axis=1)
    return first + WORDS, ended, written, jax.lax.dynamic_update_slice_in_dim(texts, drawn, first, axis=1)

  start = jnp.int32(0), jnp.zeros((B,), bool), written, nothing
  return jax.lax.while_loop(unfinished, write, start)[-1]


def repaint(
  omni: Omni, params: Params, tokens: Array, lengths: Array, codes: Array, keys: Array, *, sampling: SamplingSettings
) -> Drawing:
  """As `draw_prompts`, with the codes (B, h, w) given."""
  _, hidden = prefill(omni, params, tokens, lengths, 0)
  return _finish(omni, params, tokens, lengths, hidden, codes, keys, sampling)


def _finish(omni, params, tokens, lengths, hidden, codes, keys, sampling, kept=None) -> Drawing:
  conditions = text_conditions(omni, hidden, tokens, lengths)
  features = omni.features(params, codes)
  images = paint(omni, params, features, *conditions, keys, sampling, kept)
  return Drawing(codes, jnp.clip(omni.render(params, features), -1, 1), jnp.clip(images, -1, 1))
