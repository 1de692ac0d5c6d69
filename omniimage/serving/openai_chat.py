"""Chats as OpenAI's clients speak of them.

Pictures come as data: URIs; none is fetched. The assistant's are `message.images`, parts of the kind
{"type": "image_url"}, in what is answered and, so that an answer can be given back as it came, in what is asked.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from omniimage.data.conversation import TextTurn
from omniimage.data.text import as_text
from omniimage.ranges import Range
from omniimage.sampling.events import Image, Text, TextEnd
from omniimage.sampling.prompts import Part
from omniimage.serving.desk import AUTO, Desk, Order, Picture
from omniimage.serving.dialect import IGNORED, MODEL, body_of, tokens_of, told
from omniimage.serving.fields import Fields, parsed
from omniimage.serving.pictures import as_data_uri, of_data_uri
from omniimage.serving.refusals import Refused
from omniimage.serving.replies import EventStream, event, heard, json_reply

FORMS = {("text",): "text", ("image",): "image"}  # of an answer, by the modalities that are asked for
REASONS = {"eos": "stop", "image": "stop", "length": "length"}


class Completions:
  def __init__(self, desk: Desk):
    self._desk, self._began = desk, int(time.time())

  def routes(self) -> list[Route]:
    return [
      Route("/v1/models", self.models),
      Route("/v1/models/{model:path}", self.model),
      Route("/v1/chat/completions", self.completions, methods=["POST"]),
    ]

  async def models(self, request: Request) -> Response:
    return json_reply({"object": "list", "data": [self._model()]})

  async def model(self, request: Request) -> Response:
    if request.path_params["model"] != MODEL:
      raise Refused(f"there is one model here, {MODEL!r}", 404, "model")
    return json_reply(self._model())

  async def completions(self, request: Request) -> Response:
    fields, desk = Fields(parsed(await body_of(request))), self._desk
    parts = [part for i, message in enumerate(fields.list("messages")) for part in self._said(message, i)]
    if not parts or _is_target(parts[-1]):
      raise Refused("messages must end with what the user says", field="messages")
    if fields.take("stop"):
      raise Refused("answers cannot be stopped at a text; leave out `stop`", field="stop")
    size = desk.size(fields.text("size", AUTO))
    modalities = tuple(map(str, fields.list("modalities")))
    answer = FORMS.get(modalities, desk.studio.learnt.answer)
    sampling, seed = desk.sampling(fields, size), desk.seed(fields)
    n = fields.whole("n", 1, Range(1, desk.limits.images))
    streams, options = fields.flag("stream"), fields.take("stream_options", {})
    fields.done(IGNORED)
    order = await desk.order(parts, size, seed, n, answer, sampling)
    if streams:
      with_usage = isinstance(options, dict) and options.get("include_usage") is True
      return EventStream(request, order.feed, told(self._chunks(order, n, with_usage)))
    answers = await heard(request, order.feed)
    choices = [await asyncio.to_thread(_choice, i, items) for i, items in enumerate(answers)]
    tokens = sum(tokens_of(items, desk.studio.text_tokenizer) for items in answers)
    return json_reply({**self._head("chat.completion"), "choices": choices, "usage": _usage(order.tokens, tokens)})

  async def _chunks(self, order: Order, n: int, with_usage: bool) -> AsyncIterator[bytes]:
    """Events of a chat's stream: text as it is written, each image when it is finished."""
    head = self._head("chat.completion.chunk")

    def chunk(number: int, delta: dict, reason: str | None = None) -> bytes:
      return event({**head, "choices": [{"index": number, "delta": delta, "finish_reason": reason}]})

    for number in range(n):
      yield chunk(number, {"role": "assistant", "content": ""})
    items: list[list[Any]] = [[] for _ in range(n)]
    async for number, item in order.feed:
      items[number].append(item)
      if isinstance(item, Text):
        yield chunk(number, {"content": item.text})
      elif isinstance(item, Image):
        yield chunk(number, {"images": [await asyncio.to_thread(_image_part, item)]})
    for number, own in enumerate(items):
      yield chunk(number, {}, _reason(own))
    if with_usage:
      tokens = sum(tokens_of(own, self._desk.studio.text_tokenizer) for own in items)
      yield event({**head, "choices": [], "usage": _usage(order.tokens, tokens)})
    yield event("[DONE]")

  def _said(self, message: Any, number: int) -> list[Part | Picture]:
    """The parts of a message. Refused where it is none."""
    field = f"messages[{number}]"
    match message:
      case {"role": "user" | "system" | "developer"}:
        is_target = False
      case {"role": "assistant"}:
        is_target = True
      case _:
        raise Refused(f'{field} must be {{"role": "user", "assistant" or "system", "content": …}}', field=field)
    content, images = message.get("content"), message.get("images")
    parts: list[Any] = [content] if isinstance(content, str) else content or []
    parts = [*(parts if isinstance(parts, list) else [parts]), *(images if isinstance(images, list) else [])]
    read = (self._part(part, is_target, f"{field}.content[{i}]") for i, part in enumerate(parts))
    said = [part for part in read if part is not None]
    if not said and not is_target:
      raise Refused(f"{field} says nothing", field=field)
    return said

  def _part(self, part: Any, is_target: bool, field: str) -> Part | Picture | None:
    match part:
      case str(text) | {"type": "text" | "input_text" | "output_text", "text": str(text)}:
        return TextTurn(as_text(text), is_target) if text.strip() else None
      case {"type": "image_url" | "input_image", "image_url": {"url": str(uri)} | str(uri)}:
        return Picture(of_data_uri(uri, self._desk.limits, field), is_target)
    raise Refused(
      f'{field} must be {{"type": "text", "text": …}} or {{"type": "image_url", "image_url": {{"url": "data:…"}}}}',
      field=field,
    )

  def _model(self) -> dict:
    return {"id": MODEL, "object": "model", "created": self._began, "owned_by": MODEL}

  def _head(self, kind: str) -> dict:
    number = secrets.token_hex(12)
    return {"id": f"chatcmpl-{number}", "object": kind, "created": int(time.time()), "model": MODEL}


def _is_target(part: Part | Picture) -> bool:
  return getattr(part, "is_target", False)


def _choice(number: int, items: Sequence[Any]) -> dict:
  text = "".join(item.text for item in items if isinstance(item, TextEnd))
  images = [_image_part(item) for item in items if isinstance(item, Image)]
  message = {"role": "assistant", "content": text or None, "refusal": None, **({"images": images} if images else {})}
  return {"index": number, "message": message, "finish_reason": _reason(items), "logprobs": None}


def _image_part(image: Image) -> dict:
  return {"type": "image_url", "image_url": {"url": as_data_uri(image.pixels)}}


def _reason(items: Sequence[Any]) -> str:
  ends = [item.reason for item in items if isinstance(item, TextEnd)]
  return REASONS[ends[-1]] if ends else "stop"


def _usage(prompt: int, completion: int) -> dict:
  return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
