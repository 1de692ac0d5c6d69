"""What stands before every request: who may ask, how much may be sent and how slowly, and that every answer is one.

An ASGI application around another. Where the server has no token, it answers pages of its own host alone: a page of
somebody else's, open in the same browser, could otherwise have this machine work for it.
"""

import asyncio
import contextlib
import hmac
import math
import re
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from absl import logging
from starlette.exceptions import HTTPException

from omniimage.errors import UserError
from omniimage.serving.fields import mendable
from omniimage.serving.limits import Limits
from omniimage.serving.metrics import Metrics
from omniimage.serving.refusals import Left, Refused, as_json
from omniimage.serving.replies import json_reply

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

DRAINED = 8  # times the longest body that is read and thrown away, so that who has sent it reads why it was refused
QUIET = 1.0  # seconds without a piece after which no more is expected of a request that is refused
HEADERS = {
  "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
  "frame-ancestors 'none'; form-action 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
}
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class Guard:
  def __init__(
    self,
    app: Callable[[Message, Receive, Send], Awaitable[None]],
    limits: Limits,
    metrics: Metrics,
    token: str = "",
    open_paths: Collection[str] = (),
    hosts: Collection[str] = (),
  ):
    """
    Args:
      token: that a request must bear; empty: none.
      open_paths: that need none.
      hosts: names that a request may have this server by; empty: any.
    """
    self._app, self._limits, self._metrics = app, limits, metrics
    self._token, self._open_paths, self._hosts = token.encode(), frozenset(open_paths), frozenset(hosts)

  async def __call__(self, scope: Message, receive: Receive, send: Send):
    if scope["type"] != "http":
      await self._app(scope, receive, send)
      return
    scope["app"] = self  # by which Starlette raises what it would else answer in plain text
    exchange = Exchange(receive, send, self._limits)
    try:
      self._check(scope, exchange)
      await self._app(scope, exchange.receive, exchange.send)
    except Left:
      pass
    except Exception as error:
      await self._refuse(scope, exchange, error)
    finally:
      status = "left" if exchange.status is None else str(exchange.status)
      self._metrics.count("requests_total", {"route": _route(scope), "status": status})

  def _check(self, scope: Message, exchange: "Exchange"):
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get("host", "")
    if self._hosts and re.sub(r":\d+$", "", host) not in self._hosts:
      raise Refused(
        "this server is not known by that name; ask for it as localhost, or start it with --token_file", 421
      )
    origin = headers.get("origin")
    if not self._token and origin not in (None, f"http://{host}", f"https://{host}"):
      raise Refused("a page of another server may not ask this one", 403)
    if self._token and scope["path"] not in self._open_paths:
      kind, _, given = headers.get("authorization", "").partition(" ")
      if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
        raise Refused("give the server's token: Authorization: Bearer …", 401, headers={"WWW-Authenticate": "Bearer"})
    length = headers.get("content-length", "0")
    exchange.announced = int(length) if length.isascii() and length.isdecimal() and len(length) < 20 else 0
    if exchange.announced > self._limits.body:
      raise exchange.too_long()

  async def _refuse(self, scope: Message, exchange: "Exchange", error: Exception):
    if isinstance(error, HTTPException):
      refused = Refused(error.detail, error.status_code, headers=error.headers or {})
    elif isinstance(error, UserError):
      refused = mendable(error)
    else:
      logging.error("%s %s has failed", scope["method"], scope["path"], exc_info=error)
      refused = Refused("the request could not be answered; the server's log says why", 500)
    if exchange.status is not None:  # it has begun, and can only be broken off
      raise error
    await exchange.drain()
    reply = json_reply(as_json(str(refused), refused.status, refused.field), refused.status, refused.headers)
    with contextlib.suppress(Left):
      await reply(scope, exchange.receive, exchange.send)


class Exchange:
  """A request as it is received and the answer as it is sent, both in time, and no longer than may be.

  Attributes:
    status: of the answer, once it has begun.
    announced: bytes that the body is said to have.
  """

  def __init__(self, receive: Receive, send: Send, limits: Limits):
    self._receive, self._send, self._limits = receive, send, limits
    self._received, self._until = 0, time.monotonic() + limits.seconds
    self._whole = False
    self.status, self.announced = None, 0

  def too_long(self) -> Refused:
    return Refused(f"the request is too long: at most {self._limits.body:,} bytes are read; send smaller pictures", 413)

  async def receive(self) -> Message:
    """The next piece of the body; once that is whole, that the client has gone."""
    if self._whole:
      return await self._receive()
    message = await self._in_time()
    self._received += len(message.get("body", b""))
    if self._received > self._limits.body:
      raise self.too_long()
    return message

  async def send(self, message: Message):
    if message["type"] == "http.response.start":
      self.status = message["status"]
      own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
      message = {**message, "headers": [*message.get("headers", ()), *own]}
    try:
      await asyncio.wait_for(self._send(message), self._limits.seconds)
    except (TimeoutError, OSError):
      raise Left from None

  async def drain(self):
    """Throws away what is still sent, within bounds: up to where nothing comes for a moment."""
    with contextlib.suppress(Refused, Left):
      while not self._whole and self._received < DRAINED * self._limits.body:
        self._received += len((await self._in_time(QUIET)).get("body", b""))

  async def _in_time(self, most: float = math.inf) -> Message:
    """The next piece, within so many seconds at most."""
    try:
      message = await asyncio.wait_for(self._receive(), min(most, max(0.01, self._until - time.monotonic())))
    except TimeoutError:
      raise Refused(f"the request did not come within {self._limits.seconds:g} s", 408) from None
    if message["type"] == "http.disconnect":
      raise Left
    self._whole = not message.get("more_body", False)
    return message


def _route(scope: Message) -> str:
  """Which function has answered: not the path, for metrics shall have no names that somebody made up."""
  return getattr(scope.get("endpoint"), "__name__", "none")
