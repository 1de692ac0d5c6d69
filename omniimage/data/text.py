"""The text tokenizer: byte-level BPE (Sennrich et al. 2016; Radford et al. 2019), so that no text is ever unknown.

A small vocabulary trained on the built-in captions ships with the package; any `tokenizer.json` can take its place.
The model's own specials (`<image>`, `<eos>`, …) lie outside its ids, and what a user types never becomes a special.

    python -m omniimage.data.text      # trains the shipped vocabulary again, after the captions have changed
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from omniimage.data import emoji
from omniimage.data.lossless import PROBES, losses
from omniimage.data.scenes.captions import vocabulary_captions
from omniimage.data.tokenizer_files import Unfit, build, read, unwritten
from omniimage.errors import UserError
from omniimage.paths import anywhere

BUILTIN = Path(__file__).parent / "vocabulary.json"
BUILTIN_SIZE = 1024  # 256 bytes and 768 merges
ALPHABET = pre_tokenizers.ByteLevel.alphabet()
_REFUSED = (
  'text tokenizer {path!r}: {reason}; set data.vocabulary to "builtin" or the path of a byte-level tokenizer.json'
)


class TextTokenizer:
  """str ↔ ids, exactly: with the shipped vocabulary `decode(encode(text)) == text` for every text."""

  def __init__(self, tokenizer: Tokenizer, fingerprint: str = ""):
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # as ordinary text, that is
    self._tokenizer = tokenizer
    self.fingerprint = fingerprint  # of the content of its file
    self.size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    self.unwritten = unwritten(tokenizer, self.size)

  def __reduce__(self):  # data workers get a copy; what __init__ sets is not in the library's pickle
    return TextTokenizer, (self._tokenizer, self.fingerprint)

  @classmethod
  def load(cls, path: str = "builtin") -> "TextTokenizer":
    """The shipped vocabulary, or the `tokenizer.json` at `path`. UserError if it is missing, broken or loses text.

    Warns of what is lost where that can be borne: one way to write an accent, of several that mean the same.
    """
    try:
      if not path:
        raise Unfit("it has no name")
      description = read(BUILTIN if path == "builtin" else anywhere(path))
      built, added = build(description, path)
      tokenizer = cls(built, _fingerprint(description))
      tokenizer._check(description, [token["content"] for token in added if token["special"]], path)
    except Unfit as error:
      raise UserError(_REFUSED.format(path=path, reason=error)) from None
    except BaseException as error:  # of Rust
      if type(error).__name__ != "PanicException":
        raise
      raise UserError(_REFUSED.format(path=path, reason=f"the library breaks down over it: {error}")) from None
    return tokenizer

  def _check(self, description: Mapping[str, Any], control: Sequence[str], path: str):
    """Raises Unfit if text does not come back, or can write a control token."""
    unfit, borne = losses(lambda text: self.decode(self.encode(text)), description)
    if unfit:
      raise Unfit(f"it is not byte-level, or changes text, so that some would be lost: {_few(unfit)}")
    long = " ".join(PROBES)
    if any(self.encode(long) != self.encode(long) for _ in range(8)):
      raise Unfit("it gives a text other ids each time")
    for content in control:
      if self._tokenizer.token_to_id(content) in self.encode(content):
        raise Unfit(f"a user who types {content!r} would write its special token")
    if borne:
      logging.warning("text tokenizer %r loses how some text was written: %s", path, _few(borne))

  def encode(self, text: str) -> list[int]:
    """Lone surrogates, which are no text but may stand in JSON, become U+FFFD."""
    return self._tokenizer.encode(as_text(text), add_special_tokens=False).ids

  def decode(self, ids: Sequence[int]) -> str:
    """Bytes that are no UTF-8, as a model may write them, become U+FFFD."""
    return self._tokenizer.decode(list(ids), skip_special_tokens=False)


def as_text(text: str) -> str:
  """The text with U+FFFD for lone surrogates, which no UTF-8 can hold."""
  return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def vocabulary_fingerprint(file: Path) -> str | None:
  """Of the content of a tokenizer.json, however it is laid out; None where none can be read."""
  try:
    return _fingerprint(read(file))
  except Unfit:
    return None


def _few(lost: Sequence[str]) -> str:
  return "; ".join(lost[:3]) + (f"; and {len(lost) - 3} more" if len(lost) > 3 else "")


def _fingerprint(description: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def train_vocabulary(captions: Iterable[str], size: int) -> Tokenizer:
  """Byte-level BPE of `size` ids. A space is put before every text, and taken off again: its first word is like any."""
  if size < len(ALPHABET):
    raise ValueError(f"a byte-level vocabulary of {size} ids: it needs at least {len(ALPHABET)}, one a byte")
  tokenizer = Tokenizer(models.BPE())
  tokenizer.normalizer = normalizers.Prepend(" ")
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # which would not tell "a" from " a"
  tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", left=1, right=0)])
  trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(ALPHABET), show_progress=False)
  tokenizer.train_from_iterator(captions, trainer)
  return tokenizer


def builtin_captions() -> Iterator[str]:
  """What the shipped vocabulary is trained on: scenes of every grid, and the emoji that were trained on when it was
  made, when each was held out by itself. Runs hold its ids, so it stays as it is although the split has changed."""
  yield from vocabulary_captions(2000, seed=0)
  rng = np.random.default_rng(0)
  for concept in emoji.load().concepts:
    if not emoji.is_held_out(concept.hexcode):
      for _ in range(8):
        yield emoji.caption(concept, rng)


if __name__ == "__main__":
  train_vocabulary(builtin_captions(), BUILTIN_SIZE).save(str(BUILTIN), pretty=False)
  print(f"wrote {BUILTIN}")
