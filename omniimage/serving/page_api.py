"""What the page asks: what the model is, answers as they come, pictures and conversations that are kept."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from omniimage.ranges import Range, ranges_of
from omniimage.sampling.events import Chunk, Image, Text, TextEnd
from omniimage.sampling.session import ANSWERS
from omniimage.serving.asks import Preview
from omniimage.serving.desk import AUTO, KEEP, SHARE, Desk, Order, Redraws
from omniimage.serving.dialect import body_of, told
from omniimage.serving.fields import Fields, parsed
from omniimage.serving.history import History, Message
from omniimage.serving.pictures import as_base64, check_picture, encoded, of_data_uri
from omniimage.serving.refusals import Refused
from omniimage.serving.replies import EventStream, event, json_reply
from omniimage.settings import SamplingSettings
from omniimage.vocabulary import ASSISTANT

CONVERSATION = "/api/conversations/{name}"


class PageApi:
  def __init__(self, desk: Desk, history: History, step: int):
    """`step`: of the run's checkpoint."""
    self._desk, self._history, self._step = desk, history, step

  def routes(self) -> list[Route]:
    return [
      Route("/api/model", self.model),
      Route("/api/conversations", self.begin, methods=["POST"]),
      Route(CONVERSATION, self.read, methods=["GET"]),
      Route(CONVERSATION, self.keep, methods=["PUT"]),
      Route(CONVERSATION, self.delete, methods=["DELETE"]),
      Route(f"{CONVERSATION}/answer", self.answer, methods=["POST"]),
      Route(f"{CONVERSATION}/export", self.export),
      Route(f"{CONVERSATION}/pictures", self.add_picture, methods=["POST"]),
      Route(f"{CONVERSATION}/pictures/{{file}}", self.picture),
    ]

  async def model(self, request: Request) -> Response:
    """What it draws and says, and what may be asked of it."""
    desk, engine = self._desk, self._desk.engine
    studio, settings = desk.studio, desk.studio.settings(desk.studio.sizes[0])
    pixels = {size: studio.settings(size).buckets[0].pixels for size in studio.sizes}
    return json_reply(
      {
        "step": self._step,
        "sizes": [{"name": size, "width": width, "height": height} for size, (height, width) in pixels.items()],
        "sampling": dataclasses.asdict(settings.sampling),
        "ranges": {name: [allowed.least, allowed.most] for name, allowed in ranges_of(SamplingSettings).items()},
        "answer": studio.learnt.answer,
        "told": str(studio.learnt),
        "images": desk.limits.images,
        "body": desk.limits.body,
        "ready": engine.ready,
        "compiled": engine.compiled,
        "to_compile": engine.to_compile,
      }
    )

  async def begin(self, request: Request) -> Response:
    return json_reply({"name": self._history.new_name()}, 201)

  async def read(self, request: Request) -> Response:
    return json_reply({"messages": await asyncio.to_thread(self._history.messages, _name(request))})

  async def keep(self, request: Request) -> Response:
    """Keeps a conversation as the page has it now: an exchange taken back, another of several pictures chosen."""
    fields = Fields(parsed(await body_of(request)))
    messages, size = fields.list("messages"), self._desk.size(fields.text("size", AUTO))
    fields.done()
    await asyncio.to_thread(self._history.save, _name(request), messages, self._desk.studio.settings(size))
    return json_reply({"kept": len(messages)})

  async def delete(self, request: Request) -> Response:
    await asyncio.to_thread(self._history.delete, _name(request))
    return json_reply({"deleted": True})

  async def export(self, request: Request) -> Response:
    line = await asyncio.to_thread(self._history.export, _name(request))
    headers = {"content-disposition": 'attachment; filename="conversation.jsonl"', "cache-control": "no-store"}
    return Response(line, headers=headers, media_type="application/jsonl")

  async def add_picture(self, request: Request) -> Response:
    """Keeps the body, a picture, and says by which name."""
    content = await request.body()
    check_picture(content, self._desk.limits, "the picture")
    size = self._desk.studio.sizes[0]
    async with self._desk.decoding:  # a broken one is refused now, not when it is shown to the model
      await asyncio.to_thread(self._desk.studio.turns, [content], size)
    return json_reply({"name": await asyncio.to_thread(self._history.add_picture, _name(request), content)}, 201)

  async def picture(self, request: Request) -> Response:
    file = request.path_params["file"]
    content, kind = await asyncio.to_thread(self._history.picture, _name(request), file)
    return Response(content, headers={"cache-control": "private, max-age=86400"}, media_type=kind)

  async def answer(self, request: Request) -> Response:
    """Answers a conversation that ends with the user's turn, and keeps it with the first answer."""
    name, desk = _name(request), self._desk
    fields = Fields(parsed(await body_of(request)))
    messages = fields.list("messages")
    size = desk.size(fields.text("size", AUTO))
    answer = fields.one_of("answer", ANSWERS, desk.studio.learnt.answer)
    sampling, seed = desk.sampling(fields, size), desk.seed(fields)
    n = fields.whole("n", 1, Range(1, desk.limits.images))
    redraw = await self._redraw(name, fields.take("redraw"), size)
    fields.done()
    if redraw is not None and answer != "image":
      raise Refused("what is drawn again is answered with a picture, answer='image'", field="answer")
    if len(messages) % 2 == 0:
      raise Refused("messages must end with what the user says", field="messages")
    asked = messages[-1:] if desk.studio.learnt.exchanges == 1 else messages
    async with desk.decoding:
      turns = await asyncio.to_thread(self._history.turns, name, asked, desk.studio.settings(size))
    order = await desk.order(turns, size, seed, n, answer, sampling, previews=True, redraw=redraw)
    return EventStream(request, order.feed, told(self._events(name, messages, size, order)))

  async def _redraw(self, name: str, given: Any, size: str) -> Redraws | None:
    """What of which picture of the conversation is drawn again with each seed: a part by a mask, or all but a share."""
    if given is None:
      return None
    if not isinstance(given, dict):
      raise Refused("redraw must be an object with `picture`, and `mask` or `keep`", field="redraw")
    fields = Fields(given)
    file, mask = fields.text("picture", ""), fields.text("mask")
    keep = fields.real("keep", KEEP, SHARE)
    fields.done()
    picture, _ = await asyncio.to_thread(self._history.picture, name, file)
    if mask is None:
      return self._desk.varied(picture, keep, size)
    return self._desk.inpainted(picture, of_data_uri(mask, self._desk.limits, "mask"), size)

  async def _events(self, name: str, messages: list[Message], size: str, order: Order) -> AsyncIterator[bytes]:
    """What the page shows of the answers, each piece once."""
    yield event({"seeds": [str(seed) for seed in order.seeds], "tokens": order.tokens}, "start")
    answer: list[Message] = []
    async for number, item in order.feed:
      about = {"answer": number}
      match item:
        case Text(text):
          yield event({**about, "text": text}, "text")
        case TextEnd(text, reason):
          yield event({**about, "reason": reason}, "text_end")
          if not number and text.strip():
            answer.append({"type": "text", "text": text})
        case Preview(pixels, top, whole):
          yield event({**about, **await _piece(pixels, (top, 0), whole)}, "tokens")
        case Chunk(pixels, place, whole):
          yield event({**about, **await _piece(pixels, place, whole)}, "chunk")
        case Image(codes, _, pixels):
          file = await asyncio.to_thread(self._history.add_drawn, name, pixels, codes)
          yield event({**about, "picture": file, "seed": str(order.seeds[number])}, "image")
          if not number:
            answer.append({"type": "picture", "name": file})
    kept = bool(answer)
    if kept:
      whole = [*messages, {"role": ASSISTANT, "content": answer}]
      await asyncio.to_thread(self._history.save, name, whole, self._desk.studio.settings(size))
    yield event({"kept": kept}, "done")


async def _piece(pixels: Any, place: Sequence[int], whole: Sequence[int]) -> dict[str, Any]:
  """Pixels whose first one lies at `place` = (top, left), as a canvas of `whole` = (height, width) takes them."""
  (top, left), (rows, columns) = place, pixels.shape[:2]
  size = {"rows": rows, "columns": columns, "height": whole[0], "width": whole[1]}
  return {"top": top, "left": left, **size, "png": as_base64(await asyncio.to_thread(encoded, pixels))}


def _name(request: Request) -> str:
  return request.path_params["name"]
