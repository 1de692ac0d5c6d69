"""What the parts of OpenAI's interface have in common, and the page's with them."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request

from omniimage.data.text import TextTokenizer
from omniimage.errors import UserError
from omniimage.sampling.events import Codes, TextEnd
from omniimage.serving.fields import mendable
from omniimage.serving.refusals import Refused, as_json
from omniimage.serving.replies import event

MODEL = "omniimage"
# What clients send that changes nothing here.
IGNORED = (
  "model", "user", "quality", "style", "moderation", "background", "output_compression", "input_fidelity", "metadata",
  "store", "safety_identifier", "prompt_cache_key", "max_tokens", "max_completion_tokens", "frequency_penalty",
  "presence_penalty", "parallel_tool_calls", "service_tier", "reasoning_effort", "verbosity",
)  # fmt: skip


async def body_of(request: Request) -> bytes:
  """Of a request with JSON. Refused for another kind: a form of any page can be sent here without being asked."""
  kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
  if kind != "application/json":
    raise Refused("send JSON, with Content-Type: application/json", 415)
  return await request.body()


async def told(events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
  """Events, and what went wrong as the last of them."""
  try:
    async for content in events:
      yield content
  except UserError as error:
    refused = mendable(error)
    yield event(as_json(str(refused), refused.status, refused.field))


def tokens_of(items: Sequence[Any], text_tokenizer: TextTokenizer) -> int:
  """That an answer has, by its events."""
  codes = sum(len(item.codes) for item in items if isinstance(item, Codes))
  texts = (item.text for item in items if isinstance(item, TextEnd))
  return codes + sum(len(text_tokenizer.encode(text)) for text in texts)
