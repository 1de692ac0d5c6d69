"""The application: all routes, and the guard before them."""

from collections.abc import Collection
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from omniimage.serving.desk import Desk
from omniimage.serving.engine import Engine
from omniimage.serving.guard import Guard
from omniimage.serving.history import History
from omniimage.serving.openai_chat import Completions
from omniimage.serving.openai_images import Images
from omniimage.serving.page_api import PageApi
from omniimage.serving.refusals import Refused
from omniimage.serving.replies import json_reply

PAGE = {  # the files of the page, and what they are
  "index.html": "text/html; charset=utf-8",
  "style.css": "text/css; charset=utf-8",
  "icon.svg": "image/svg+xml",
  "app.js": "text/javascript; charset=utf-8",
  "api.js": "text/javascript; charset=utf-8",
  "brush.js": "text/javascript; charset=utf-8",
  "painting.js": "text/javascript; charset=utf-8",
  "sketch.js": "text/javascript; charset=utf-8",
  "talk.js": "text/javascript; charset=utf-8",
}


class App:
  """`asgi` is what a server runs."""

  def __init__(self, engine: Engine, history: History, step: int, token: str = "", hosts: Collection[str] = ()):
    """
    Args:
      step: of the run's checkpoint.
      token, hosts: as of `Guard`.
    """
    self._engine, self._desk = engine, Desk(engine)
    folder = resources.files("omniimage.serving") / "page"
    self._page = {name: (folder / name).read_bytes() for name in PAGE}
    page = PageApi(self._desk, history, step)
    routes = [
      Route("/", self.index),
      Route("/page/{name}", self.asset),
      Route("/health", self.health),
      Route("/metrics", self.metrics),
      *page.routes(),
      *Images(self._desk).routes(),
      *Completions(self._desk).routes(),
    ]
    router = Router(routes, redirect_slashes=False, default=_nothing)
    open_paths = ("/", "/health", *(f"/page/{name}" for name in PAGE))
    self.asgi = Guard(router, engine.limits, engine.metrics, token, open_paths, hosts)

  async def index(self, request: Request) -> Response:
    return Response(self._page["index.html"], media_type=PAGE["index.html"], headers={"cache-control": "no-cache"})

  async def asset(self, request: Request) -> Response:
    name = request.path_params["name"]
    if name not in PAGE:
      raise Refused("there is no such page", 404)
    return Response(self._page[name], media_type=PAGE[name], headers={"cache-control": "no-cache"})

  async def health(self, request: Request) -> Response:
    """503 until all that is compiled at start is there; requests are taken from the first moment on."""
    engine = self._engine
    state = {"status": "ok" if engine.ready else "compiling", "compiled": engine.compiled}
    waits = {"to_compile": engine.to_compile, "waiting": engine.waiting, "works": engine.works}
    return json_reply({**state, **waits}, 200 if engine.ready else 503)

  async def metrics(self, request: Request) -> Response:
    return Response(self._engine.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _nothing(scope, receive, send):
  raise Refused("there is nothing at this address", 404)
