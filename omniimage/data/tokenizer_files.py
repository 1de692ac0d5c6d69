"""A tokenizer.json as this project can use it: text only, the same ids each time, every token under its own id."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging
from tokenizers import Tokenizer

MOST_IDS = 2**24
ADDED = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}  # if not said


class Unfit(ValueError):
  """Why a tokenizer.json cannot be used, in plain words."""


def read(file: Path) -> dict[str, Any]:
  """The description in a file, as it is. Raises Unfit."""
  try:
    description = json.loads(file.read_text(encoding="utf-8"))
  except IsADirectoryError:
    raise Unfit("it is a directory; name the file in it") from None
  except UnicodeDecodeError:
    raise Unfit("it is no text, but some binary file") from None
  except json.JSONDecodeError as error:
    raise Unfit(f"it is no JSON: {error}") from None
  except (OSError, ValueError, RecursionError) as error:
    raise Unfit(getattr(error, "strerror", None) or str(error)) from None
  if not isinstance(description, dict) or not isinstance(description.get("model"), dict):
    raise Unfit("it describes no tokenizer: it is no JSON object with a model")
  return description


def build(description: Mapping[str, Any], name: str) -> tuple[Tokenizer, list[dict[str, Any]]]:
  """The tokenizer that a description is of, and its added tokens as they were described. Raises Unfit.

  Chance is left out (dropout), and so are added tokens that a text could write: "<think>" and "<tool_call>" are often
  not marked as the specials they are.
  """
  if description["model"].get("dropout"):
    logging.warning(
      "text tokenizer %r: its dropout of %s is left out, so that a text always gives the same ids",
      name,
      description["model"]["dropout"],
    )
  model = {**description["model"], **({"dropout": None} if "dropout" in description["model"] else {})}
  added = [_added(token) for token in description.get("added_tokens") or []]
  usable = [{**token, "special": not token["content"].isspace()} for token in added]
  description = {**description, "model": model, "added_tokens": usable}
  tokenizer = _from(description)
  if _misplaced(tokenizer, added):
    tokenizer = _from(_without_gaps(description))
  if wrong := _misplaced(tokenizer, added):
    token = min(wrong, key=lambda token: token["id"])
    raise Unfit(f"its added token {token['content']!r} cannot have the id {token['id']}, which is another's")
  return tokenizer, added


def unwritten(tokenizer: Tokenizer, size: int) -> tuple[int, ...]:
  """The ids below `size` that no text is made of: control tokens, and gaps. Of a trained model they may be as they were
  drawn at its beginning."""
  control = {i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special}
  own = tokenizer.get_vocab(with_added_tokens=True)
  written = {i for content, i in own.items() if content != _unused(i)}
  return tuple(i for i in range(size) if i in control or i not in written)


def _added(token: Any) -> dict[str, Any]:
  if not isinstance(token, dict) or not isinstance(token.get("content"), str) or type(token.get("id")) is not int:
    raise Unfit(f"an added token needs an id and its content: {json.dumps(token)[:80]}")
  if not token["content"] or not 0 <= token["id"] < MOST_IDS:
    raise Unfit(f"its added token {token['content']!r} has the id {token['id']}; ids are from 0 to {MOST_IDS - 1}")
  return {**ADDED, **token}


def _from(description: Mapping[str, Any]) -> Tokenizer:
  try:
    return Tokenizer.from_str(json.dumps(description))
  except Exception as error:  # the library raises nothing narrower
    raise Unfit((str(error).splitlines() or [type(error).__name__])[0]) from None


def _misplaced(tokenizer: Tokenizer, added: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """Added tokens that have not got their ids: the library numbers them one after the other."""
  return [token for token in added if tokenizer.token_to_id(token["content"]) != token["id"]]


def _without_gaps(description: Mapping[str, Any]) -> dict[str, Any]:
  """The description with a token for every id, so that numbering them one after the other gives each its own."""
  added = {token["id"]: token for token in description["added_tokens"]}
  vocab = description["model"].get("vocab")
  vocab = dict(vocab) if isinstance(vocab, dict) else vocab
  own = max(vocab.values(), default=-1) + 1 if isinstance(vocab, dict) else len(vocab or ())
  if isinstance(vocab, dict):
    for free in set(range(own)) - set(vocab.values()):
      vocab[added[free]["content"] if free in added else _unused(free)] = free
  behind = range(own, max(added, default=-1) + 1)
  fillers = {i: {**ADDED, "id": i, "content": _unused(i), "normalized": False, "special": True} for i in behind}
  tokens = [token for _, token in sorted({**fillers, **added}.items())]
  return {**description, "model": {**description["model"], "vocab": vocab}, "added_tokens": tokens}


def _unused(i: int) -> str:
  return f"<|unused {i}|>"
