"""Notices at once that a process of the run has died, says which, and ends the others, to be started again with it.

By itself JAX lets them wait, in a collective or on the host, until no heartbeat has come for 100 s, and then aborts
them. Here every process keeps a connection to process 0. The kernel closes it when either of the two dies, and probes
it while it is idle, so that a machine that has vanished counts as dead too. Lines of text go over it: "done" and
"failed" to process 0; "lost INDEX HOST REASON" and "done" from it; and "note …", of whoever hears them, both ways.
"""

import contextlib
import ctypes
import hmac
import ipaddress
import os
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

import jax

from omniimage.distributed.preemption import RUN_AGAIN
from omniimage.errors import UserError

KEY = "omniimage/watch"  # of the port, the token and the host of process 0, in the store of jax.distributed
PROBES = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # a vanished machine is noticed after 20 s
JOINING = 60.0  # seconds in which all must have connected
HELLO = 5.0  # seconds in which a connection must say whose it is
# An error of one process is often one of all, a wrong setting. So long they have to meet it, and to end with it.
OWN_ERROR = 8.0
LINGER = 1.0  # process 0 ends so much later than the others, since JAX aborts those that outlive it
HEARING = 2.0  # an error that comes of another's death waits so long for the news of it
DIED, FAILED = "died", "ended with an error, which its own log shows"

_current = None  # the Watch of this process


class NotJoined(UserError):
  """The processes did not find one another; those that are missing may come later."""

  exit_code = RUN_AGAIN


def begin(client, index: int, count: int, coordinator: str) -> "Watch":
  """Connects this process of `count` with process 0, or process 0 with all. All must call it.

  Args:
    client: of `jax.distributed`, for its key-value store.
    coordinator: HOST:PORT where process 0 serves that store.

  Raises NotJoined.
  """
  global _current
  _current = Watch(index, _connect(client, index, count, coordinator))
  return _current


def current() -> "Watch | None":
  """That of this process; None where it is not one of several."""
  return _current


def _connect(client, index: int, count: int, coordinator: str) -> "dict[int, Peer]":
  host = coordinator.rpartition(":")[0].strip("[]")
  try:
    if index == 0:
      return _accept(client, host, count)
    port, token, name = client.blocking_key_value_get(KEY, int(1000 * JOINING)).split()
    connection = socket.create_connection((host, int(port)), timeout=JOINING)
    connection.sendall(f"{token} {index} {host_name()}\n".encode())
  except (OSError, RuntimeError) as error:  # RuntimeError: of JAX, which knows no such key in time
    reason = " ".join(str(error).split())[:200]
    raise NotJoined(
      f"process {index} could not connect with process 0 on {host}: {reason}; let the hosts reach one another on all "
      "ports"
    ) from error
  return {0: Peer(name, connection)}


class Peer:
  """The other end of a connection."""

  def __init__(self, host: str, connection: socket.socket, lines: TextIO | None = None):
    self.host, self.connection = host, connection
    self.lines = lines or connection.makefile(errors="replace")
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in PROBES.items():
      if hasattr(socket, option):
        connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    os.register_at_fork(after_in_child=self._disown)

  def _disown(self):
    """In a worker process, which has inherited the connection and would keep it open when this one is dead."""
    if self.connection.fileno() >= 0:
      socket.close(self.connection.detach())


class Watch:
  """Lasts until `done` returns, `failed` returns, or another process ends too soon, and this one with exit code 75."""

  def __init__(self, index: int, peers: dict[int, Peer]):
    self.index, self._peers = index, peers
    self._hear_note: Callable[[int, list[str]], None] = lambda other, words: None
    self._not_done = {index, *peers}
    self._lost, self._all_done, self._leaving = threading.Event(), threading.Event(), threading.Event()
    self._died, self._lock = False, threading.Lock()
    _abort_slowly()
    self._threads = [threading.Thread(target=self._listen, args=pair, daemon=True) for pair in peers.items()]
    for thread in self._threads:
      thread.start()

  def done(self):
    """Returns once every process has called it."""
    if self.index == 0:
      self._mark_done(0)
    else:
      self._tell("done")
    self._all_done.wait()

  def failed(self, error: BaseException):
    """Tells the others that this process is about to end with an error. Does not return if that came of their end."""
    own = isinstance(error, UserError | KeyboardInterrupt | SystemExit) or not self._lost.wait(HEARING)
    if not own and (self._died or isinstance(error, jax.errors.JaxRuntimeError)):  # of a collective with the lost one
      threading.Event().wait()
    with self._lock:
      self._leaving.set()
    self._tell(f"lost 0 {host_name()} {FAILED}" if self.index == 0 else "failed")
    if self.index == 0:  # until the others have gone
      end = time.monotonic() + OWN_ERROR + LINGER
      for thread in self._threads:
        thread.join(max(end - time.monotonic(), 0))

  @property
  def hosts(self) -> dict[int, str]:
    """Those of the processes that this one is connected with, and its own."""
    return {self.index: host_name(), **{index: peer.host for index, peer in self._peers.items()}}

  def note(self, *words: object):
    """Tells process 0, or all others, where this is process 0. The last word alone may have spaces."""
    self._tell(f"note {' '.join(map(str, words))}")

  def hear_notes(self, hear: Callable[[int, list[str]], None]):
    """From now on `hear` is called, in threads of the watch, with who sent a note and its words."""
    self._hear_note = hear

  def end(self, index: int, reason: str):
    """Ends this process, and where it is process 0 all others, with exit code 75, because one of them hangs."""
    self._leave(index, self.hosts[index], reason)

  def _listen(self, other: int, peer: Peer):
    with contextlib.suppress(OSError):  # reset, or the probes went unanswered
      for line in peer.lines:
        self._hear(other, line.split())
    if not self._all_done.is_set():
      self._leave(other, peer.host, DIED)

  def _hear(self, other: int, words: list[str]):
    match words:
      case ["failed"]:
        self._leave(other, self._peers[other].host, FAILED)
      case ["lost", index, host, *reason]:
        self._leave(int(index), host, " ".join(reason))
      case ["note", *note]:
        self._hear_note(other, note)
      case ["done"] if self.index == 0:
        self._mark_done(other)
      case ["done"]:
        self._all_done.set()

  def _mark_done(self, index: int):
    with self._lock:
      self._not_done.discard(index)
      if self._not_done:
        return
    self._all_done.set()  # before the others know it, close, and would be taken for dead
    self._tell("done")

  def _leave(self, index: int, host: str, reason: str):
    """Ends this process because another has ended, unless an error of its own is about to end it."""
    with self._lock:
      if self._lost.is_set() or self._leaving.is_set():  # the deaths after the first one come of it
        return
      self._died = reason == DIED
      self._lost.set()
    if self.index == 0:
      self._tell(f"lost {index} {host} {reason}")
    self._leaving.wait((OWN_ERROR if reason == FAILED else 0) + (LINGER if self.index == 0 else 0))
    with self._lock:
      if self._leaving.is_set():
        return
      print(
        f"\nerror: process {index} ({host}) {reason}; the same command, started again on all hosts, goes on from the "
        "last checkpoint",
        file=sys.stderr,
        flush=True,
      )
      os._exit(RUN_AGAIN)  # the usual way out would wait for threads and for JAX, and they for the dead

  def _tell(self, line: str):
    for peer in self._peers.values():
      with contextlib.suppress(OSError):  # dead too
        peer.connection.sendall(f"{line}\n".encode())


def _accept(client, host: str, count: int) -> dict[int, Peer]:
  """The connections of all other processes. Who does not know the token is turned away."""
  token, peers, deadline = secrets.token_hex(16), {}, time.monotonic() + JOINING
  with _server(host) as server:
    client.key_value_set(KEY, f"{server.getsockname()[1]} {token} {host_name()}")
    while missing := set(range(1, count)) - set(peers):
      server.settimeout(max(deadline - time.monotonic(), 0.01))
      try:
        connection, _ = server.accept()
      except TimeoutError:
        raise TimeoutError(f"of processes {sorted(missing)} nothing was heard in {JOINING:.0f} s") from None
      connection.settimeout(HELLO)
      lines = connection.makefile(errors="replace")
      try:
        words = lines.readline(500).split()
      except OSError:
        words = []
      if len(words) == 3 and hmac.compare_digest(words[0].encode(), token.encode()):
        peers[int(words[1])] = Peer(words[2], connection, lines)
      else:
        connection.close()
  return peers


def _server(host: str) -> socket.socket:
  """On the loopback interface if that is where the processes meet, else on all, as JAX's own."""
  with contextlib.suppress(ValueError):
    if host == "localhost" or ipaddress.ip_address(host).is_loopback:
      return socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
  if socket.has_dualstack_ipv6():
    return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
  return socket.create_server(("", 0))


def host_name() -> str:
  return socket.gethostname() or "unknown"


def _abort_slowly():
  """When process 0 is gone, JAX aborts the others within milliseconds, from a thread of its own. `sleep` as the handler
  of SIGABRT, which it takes as 6 seconds, holds that thread back while the watch says who died and leaves."""
  libc = ctypes.CDLL(None)
  libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
  libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
