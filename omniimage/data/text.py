"""The text tokenizer: byte-level BPE (Sennrich et al. 2016; Radford et al. 2019), so that no text is ever unknown.

A small vocabulary trained on the built-in captions ships with the package; any `tokenizer.json` can take its place.
The model's own specials (`<image>`, `<eos>`, …) lie outside its ids, and what a user types never becomes a special.

    python -m omniimage.data.text      # trains the shipped vocabulary again, after the captions have changed
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from omniimage.data import emoji, scenes
from omniimage.errors import UserError

BUILTIN = Path(__file__).parent / "vocabulary.json"
BUILTIN_SIZE = 1024  # 256 bytes and 768 merges
ALPHABET = pre_tokenizers.ByteLevel.alphabet()
_PROBE = "é 猫 🐈\t\n  <x>"  # comes back from any tokenizer that keeps every byte, also from one that composes (NFC)
_REFUSED = (
  'text tokenizer {path!r}: {reason}; set data.vocabulary to "builtin" or the path of a byte-level tokenizer.json'
)


class TextTokenizer:
  """str ↔ ids, exactly: with the shipped vocabulary `decode(encode(text)) == text` for every text."""

  def __init__(self, tokenizer: Tokenizer):
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # as ordinary text, that is
    self._tokenizer = tokenizer
    self.size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1

  def __reduce__(self):
    return TextTokenizer, (self._tokenizer,)  # data workers get a copy; what __init__ sets is not in its pickle

  @classmethod
  def load(cls, path: str = "builtin") -> "TextTokenizer":
    """The shipped vocabulary, or the `tokenizer.json` at `path`. UserError if it is missing, broken or loses text."""
    file = BUILTIN if path == "builtin" else Path(path)
    try:
      description = json.loads(file.read_text(encoding="utf-8"))
      added = description.get("added_tokens") or []
      control = [token["content"] for token in added if token["special"]]
      for token in added:  # "<think>" and "<tool_call>" are often not marked as the specials they are
        token["special"] = not token["content"].isspace()
      tokenizer = cls(Tokenizer.from_str(json.dumps(description)))
    except Exception as error:  # the library raises nothing narrower
      reason = (str(error).splitlines() or [type(error).__name__])[0]
      raise UserError(_REFUSED.format(path=path, reason=reason)) from None
    if tokenizer.decode(tokenizer.encode(_PROBE)) != _PROBE:
      raise UserError(_REFUSED.format(path=path, reason="it is not byte-level, some text would become unknown"))
    for content in control:
      if tokenizer._tokenizer.token_to_id(content) in tokenizer.encode(content):
        raise UserError(
          _REFUSED.format(path=path, reason=f"a user who types {content!r} would write its special token")
        )
    return tokenizer

  def encode(self, text: str) -> list[int]:
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Sequence[int]) -> str:
    """Bytes that are no UTF-8, as a model may write them, become U+FFFD."""
    return self._tokenizer.decode(list(ids), skip_special_tokens=False)


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
  yield from scenes.vocabulary_captions(2000, seed=0)
  rng = np.random.default_rng(0)
  for concept in emoji.load().concepts:
    if not emoji.is_held_out(concept.hexcode):
      for _ in range(8):
        yield emoji.caption(concept, rng)


if __name__ == "__main__":
  train_vocabulary(builtin_captions(), BUILTIN_SIZE).save(str(BUILTIN), pretty=False)
  print(f"wrote {BUILTIN}")
