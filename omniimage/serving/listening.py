"""A socket, and a server on it until it is told to stop."""

import contextlib
import errno
import ipaddress
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import uvicorn

from omniimage import signals
from omniimage.errors import UserError
from omniimage.serving.app import App
from omniimage.serving.engine import Engine
from omniimage.serving.guard import LOOPBACK
from omniimage.serving.history import History
from omniimage.training.coded import fingerprint
from omniimage.workdir import Run

BACKLOG = 256
SECONDS_TO_STOP = 5  # that answers under way have, once it is to stop


def bound(host: str, port: int) -> socket.socket:
  """Bound, not yet listening. UserError where the address cannot be had."""
  try:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    own = socket.socket(family, socket.SOCK_STREAM)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.bind(address)
  except OSError as error:
    taken = error.errno == errno.EADDRINUSE
    what = (
      "is in use by another program; choose another --port" if taken else f"cannot be listened at: {error.strerror}"
    )
    raise UserError(f"--host={host} --port={port} {what}") from None
  return own


def is_local(own: socket.socket) -> bool:
  """Whether only this machine reaches it."""
  return ipaddress.ip_address(own.getsockname()[0]).is_loopback


def warning(own: socket.socket, token: str) -> str:
  """What whoever starts the server should know, if anything."""
  if token or is_local(own):
    return ""
  return (
    f"{own.getsockname()[0]} is reached from other machines and there is no --token_file: whoever reaches it draws "
    "here; and without TLS in front of it, a token would be read on the way"
  )


def server_of(app: App, engine: Engine) -> uvicorn.Server:
  """What runs it. It listens to no signals: whoever runs it sets `should_exit`. Its logs go where all others go; a
  configuration of its own would close those of absl."""
  config = uvicorn.Config(
    app.asgi, log_level="warning", log_config=None, access_log=False, server_header=False, lifespan="off", http="h11",
    ws="none", backlog=BACKLOG, limit_concurrency=engine.limits.connections,
    timeout_graceful_shutdown=SECONDS_TO_STOP,
  )  # fmt: skip
  server = uvicorn.Server(config)
  server.capture_signals = contextlib.nullcontext
  return server


def serve(engine: Engine, run: Run, conversations: Path, own: socket.socket, token: str):
  """Serves until SIGINT or SIGTERM."""
  history = History(conversations, fingerprint(run.params["tokenizer"]))
  host, port = own.getsockname()[:2]
  shown = f"[{host}]" if ":" in host else host
  app = App(engine, history, run.step, token, () if token or not is_local(own) else (*LOOPBACK, shown))
  engine.start()
  own.listen(BACKLOG)
  print(f"http://{shown}:{port}: step {run.step} of the run. {engine.studio.learnt}", flush=True)
  threading.Thread(target=_tell_progress, args=(engine,), daemon=True, name="progress").start()
  server = server_of(app, engine)

  def stop(number: int, frame: object):
    server.force_exit = server.should_exit
    server.should_exit = True
    threading.Thread(target=engine.close, daemon=True).start()  # ends the streams, which would else be broken off

  for number in signals.ENDS:
    if signal.getsignal(number) is not signal.SIG_IGN:
      signal.signal(number, signals.counted(stop))
  try:
    server.run(sockets=[own])
  finally:
    engine.close()


def _tell_progress(engine: Engine):
  """One line a program on a terminal, until all are there."""
  told = -1
  while not engine.ready:
    if engine.compiled != told and sys.stderr.isatty():
      told = engine.compiled
      print(f"\rcompiling {told + 1} of {engine.to_compile} …", end="", file=sys.stderr, flush=True)
    time.sleep(0.5)
  if told >= 0:
    print("\rcompiled.                    ", file=sys.stderr, flush=True)
