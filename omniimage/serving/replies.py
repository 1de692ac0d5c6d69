"""Answers: JSON, server-sent events, and what waits for answers of the model while the client does."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from omniimage.serving.feed import Feed
from omniimage.serving.refusals import Left

NEVER_KEPT = {"cache-control": "no-store"}


def json_reply(value: Any, status: int = 200, headers: Mapping[str, str] = {}) -> Response:
  """A value as JSON; in ASCII, which holds even what is no text."""
  content = json.dumps(value, allow_nan=False).encode()
  return Response(content, status, {**NEVER_KEPT, **headers}, media_type="application/json")


def event(value: Any, name: str | None = None) -> bytes:
  """A server-sent event."""
  data = value if isinstance(value, str) else json.dumps(value, allow_nan=False)
  return f"{f'event: {name}{chr(10)}' if name else ''}data: {data}\n\n".encode()


async def gone(request: Request):
  """Returns when the client has gone. Its request must have been read."""
  while (await request.receive())["type"] != "http.disconnect":
    pass


async def heard(request: Request, feed: Feed) -> list[list[Any]]:
  """All items of each answer of a feed. Where the client goes, the feed is left, and nobody is answered."""
  items: list[list[Any]] = [[] for _ in range(feed.answers)]

  async def listen():
    async for number, item in feed:
      items[number].append(item)

  if not await _before_gone(request, listen, feed):
    raise Left
  return items


class EventStream(Response):
  """Server-sent events as they come. Where the client goes, or takes them too slowly, the feed is left."""

  media_type = "text/event-stream"

  def __init__(self, request: Request, feed: Feed, events: AsyncIterator[bytes]):
    super().__init__(headers={**NEVER_KEPT, "x-accel-buffering": "no"})
    del self.headers["content-length"]
    self._request, self._feed, self._events = request, feed, events

  async def __call__(self, scope: Any, receive: Any, send: Any):
    async def pump():
      await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
      async for content in self._events:
        await send({"type": "http.response.body", "body": content, "more_body": True})
      await send({"type": "http.response.body", "body": b""})

    await _before_gone(self._request, pump, self._feed)


async def _before_gone(request: Request, act: Any, feed: Feed) -> bool:
  """Whether `act` has ended before the client was gone. The feed is left in any case."""
  acting, leaving = asyncio.ensure_future(act()), asyncio.ensure_future(gone(request))
  try:
    await asyncio.wait((acting, leaving), return_when=asyncio.FIRST_COMPLETED)
    if acting.done():
      acting.result()
    return acting.done()
  finally:
    feed.leave()
    for task in (acting, leaving):
      task.cancel()
      with contextlib.suppress(asyncio.CancelledError, Exception):
        await task
