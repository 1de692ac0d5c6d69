"""The tokenizer in the metadata of a GGUF file, as a tokenizer.json.

The file keeps tokens and merges, and of how text is cut before they apply only a name: `CUTS` says what it means.
"""

from collections.abc import Callable
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from omniimage.errors import UserError

CONTROL, USER_DEFINED, UNUSED = 3, 4, 5  # of tokenizer.ggml.token_type

WORDS = (  # of Llama 3 and Qwen; they differ in how many digits are one piece
  r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*"
  r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _words(digits: str) -> pre_tokenizers.PreTokenizer:
  split = pre_tokenizers.Split(Regex(WORDS.replace("DIGITS", digits)), "isolated")
  return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def _bytes(*before: pre_tokenizers.PreTokenizer) -> pre_tokenizers.PreTokenizer:
  return pre_tokenizers.Sequence([*before, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


CUTS = {  # by tokenizer.ggml.pre: the cut, whether whole words that are tokens need no merges, the normalizer
  "gpt-2": (_bytes(), False, None),
  "smollm": (_bytes(pre_tokenizers.Digits(individual_digits=True)), False, None),
  "llama-bpe": (_words("{1,3}"), True, None),
  "qwen2": (_words(""), False, normalizers.NFC()),
}


def tokenizer_json(said: Callable[[str], Any], where: str) -> str:
  """The content of a tokenizer.json. UserError where the metadata describes no byte-level BPE that is known here.

  Args:
    said: gives values of the metadata by key, None where there is none.
    where: what errors call the file.
  """
  kind, cut = said("tokenizer.ggml.model"), said("tokenizer.ggml.pre")
  if kind != "gpt2" or cut not in CUTS:
    raise UserError(
      f"{where}: its tokenizer is {kind!r} with the cut {cut!r}, and known are those of 'gpt2' with {', '.join(CUTS)}; "
      "take the model's safetensors files and tokenizer.json instead"
    )
  tokens, merges = said("tokenizer.ggml.tokens") or (), said("tokenizer.ggml.merges") or ()
  kinds = said("tokenizer.ggml.token_type") or [1] * len(tokens)
  pre_tokenizer, whole_words, normalizer = CUTS[cut]
  added = {i for i, kind in enumerate(kinds) if kind in (CONTROL, USER_DEFINED, UNUSED)}
  own = {token: i for i, token in enumerate(tokens) if i not in added}
  pairs = [tuple(merge.split(" ", 1)) for merge in merges]
  try:
    # Control tokens keep their ids in the vocabulary: adding them numbers them on behind it.
    vocab = own | {tokens[i]: i for i in sorted(added)}
    tokenizer = Tokenizer(models.BPE(vocab, pairs, ignore_merges=whole_words))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer is not None:
      tokenizer.normalizer = normalizer
    for i in sorted(added):
      tokenizer.add_tokens([AddedToken(tokens[i], special=kinds[i] != USER_DEFINED, normalized=False)])
  except Exception as error:  # the library raises nothing narrower
    raise UserError(f"{where}: its tokenizer cannot be made: {error}; take its tokenizer.json instead") from None
  return tokenizer.to_str(pretty=False)
