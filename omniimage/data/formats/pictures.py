"""The pictures of one record, read in the order in which its turns show them."""

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any

from omniimage.data.records import BadRecord, Picture


class Pictures:
  """A reference to a picture is a file name, a data: URI, the encoded bytes, or a struct with one of these (`bytes`,
  `path`, `url`), as Hugging Face's `datasets` and OpenAI's messages have it."""

  images: list[bytes]  # encoded, in the order of `read`

  def __init__(self, file: Callable[[str], bytes]):
    """`file`: a name → what it holds; BadRecord where there is no such file."""
    self.images, self._file = [], file

  def read(self, reference: Any, field: str) -> Picture:
    """The next picture. BadRecord names the field that has none."""
    if is_empty(reference):
      raise BadRecord(f"no picture: {field} is empty")
    try:
      self.images.append(self._content(reference))
    except BadRecord as error:
      raise BadRecord(f"no picture: {field}: {error}") from None
    return Picture(len(self.images) - 1)

  def _content(self, reference: Any) -> bytes:
    match reference:
      case bytes(content) | {"bytes": bytes(content)}:
        return content
      case str(name) | {"url": str(name)} | {"path": str(name)}:
        return _of_data_uri(name) if name.startswith("data:") else self._file(name)
    raise BadRecord(f"a picture must be a file name, a data: URI or bytes; this is a {type(reference).__name__}")


def is_empty(reference: Any) -> bool:
  """Whether it is none, or a struct of nothing else."""
  return not any(reference.values()) if isinstance(reference, dict) else reference in (None, "", b"", [])


def _of_data_uri(reference: str) -> bytes:
  head, comma, body = reference.partition(",")
  if not comma or not head.endswith(";base64"):
    raise BadRecord("a data: URI must be of base64, as data:image/png;base64,…")
  try:
    image = base64.b64decode(re.sub(r"\s", "", body), validate=True)
  except (binascii.Error, ValueError) as error:
    raise BadRecord(f"the base64 of a data: URI is broken: {error}") from None
  if not image:
    raise BadRecord("a data: URI is empty")
  return image
