"""Whether text comes back from a tokenizer: it is given texts that show what tokenizers are known to lose."""

import functools
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from typing import Any

PROBES = (
  "", "red", "A Red STAR", " red", "red ", "  a   b    c  ", " ", "a\tb", "\n", "a\nb\n\nc", "a\r\nb", "x" * 300,
  "é", "e\u0301", "Å ñ ü", "İ ı ſ ẞ", "猫", "한", "🐈\u200d⬛ 👩\u200d🚀", "\u00a0", "a\u3000", "a\u200b\u00ad\ufeffb",
  "ﬁ", "½", "①", "㎏", "ｶﾞ", "x²", "…", "“a” ‘b’ – —", "``a'' \"b\"", "a . b , c ! d ? don 't n't", "a/b-c_d",
  "<x>", "</w>", "##a", "a@@ b", "▁", "a▁b", "Ġ Ċ", "[UNK] <unk> <s>", "<0x41>", "\x00\x07\x7f\uffff",
)  # fmt: skip
SPACE_SIGN = "▁"  # SentencePiece writes it for a space


def losses(come_back: Callable[[str], str], description: Mapping[str, Any]) -> tuple[list[str], list[str]]:
  """What a tokenizer loses, in words: what makes it unfit, and what can be borne if it is known.

  Borne is text that comes back canonically the same (NFC and NFD change it), U+2581, which SentencePiece takes for a
  space, and characters that say nothing: control codes and those not assigned, for whose bytes SmolLM2 has no tokens.

  Args:
    come_back: decodes what it has encoded.
    description: the tokenizer.json.
  """
  unfit, borne = [], []
  if any(rule.get("type") == "Strip" for rule in _rules(description, "normalizer")):
    return ["white space at the ends of a text (Strip)"], []  # the library panics where nothing is left
  for given in (*PROBES, *_every_byte(), *_named(description)):
    found = come_back(given)
    if found != given:
      same = any(_same(read(given), read(found)) for read in (str, _with_spaces, _assigned))
      (borne if same else unfit).append(f"{given!a} comes back as {found!a}")
  for rule in _rules(description):
    pattern = rule.get("pattern")
    replaces = rule.get("type") == "Replace" or rule.get("behavior") == "Removed"
    if replaces and isinstance(pattern, Mapping) and "Regex" in pattern:
      borne.append(f"what matches {pattern['Regex']!r} comes back as {rule.get('content', '')!r}, or may")
  return unfit, borne


def _same(a: str, b: str) -> bool:
  return unicodedata.normalize("NFC", a) == unicodedata.normalize("NFC", b)


def _with_spaces(text: str) -> str:
  return text.replace(SPACE_SIGN, " ")


def _assigned(text: str) -> str:
  """Without control codes, the usual white space apart, characters that Unicode does not assign, and what stands for
  bytes that are no character."""
  return "".join(c for c in text if c in "\t\n\r" or (c != "\ufffd" and unicodedata.category(c) not in ("Cc", "Cn")))


@functools.cache
def _every_byte() -> tuple[str, ...]:
  """Characters in whose UTF-8 every byte occurs that can occur, and which composition leaves as they are."""
  continuations = [chr(0x4E00 + i) for i in range(64)]  # the last byte of each is another
  two = [range((lead & 0x1F) << 6, ((lead & 0x1F) + 1) << 6) for lead in range(0xC2, 0xE0)]
  three = [range(max(lead << 12, 0x800), (lead << 12) + 0x800 + 0x800 * (lead == 0)) for lead in range(16)]
  four = [range(max(lead << 18, 0x10000), (lead << 18) + 0x10000 + 0x10000 * (lead == 0)) for lead in range(5)]
  first = [next(filter(_composed, map(chr, points))) for points in (*two, *three, *four)]
  return (*map(chr, range(128)), *continuations, *first)


def _composed(character: str) -> bool:
  return unicodedata.is_normalized("NFKC", character)


def _named(description: Mapping[str, Any]) -> Iterator[str]:
  """Texts with what the description names: replaced, removed or added strings, and tokens of white space."""
  strings = {value for rule in _rules(description) for value in _strings(rule)}
  strings |= {token["content"] for token in description.get("added_tokens") or () if token["content"].isspace()}
  for string in sorted(strings):
    yield from (string, f"a{string}b", f" {string} ")


def _rules(description: Mapping[str, Any], *kinds: str) -> Iterator[Mapping[str, Any]]:
  """Every normalizer, pre-tokenizer and decoder, or those of some kinds; of sequences one by one."""
  todo = [description.get(kind) for kind in kinds or ("normalizer", "pre_tokenizer", "decoder")]
  while todo:
    rule = todo.pop()
    if isinstance(rule, Mapping):
      yield rule
      todo += [part for name in ("normalizers", "pretokenizers", "decoders") for part in rule.get(name) or ()]


def _strings(rule: Mapping[str, Any]) -> Iterator[str]:
  for key, value in rule.items():
    if key == "pattern" and isinstance(value, Mapping):
      yield from (text for kind, text in value.items() if kind == "String")
    elif key in ("content", "prepend", "replacement", "delimiter", "prefix", "suffix") and isinstance(value, str):
      yield value
