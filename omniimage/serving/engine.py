"""The queue, and the threads that compute.

Two threads take works, a batch of images or a session of texts and images, and advance each by one step in turn: so a
short answer need not wait for a long one. What one of them has not been compiled for waits for the other: thus nobody's
answer stalls while a program is compiled for somebody else.
"""

import collections
import threading
import time
from collections.abc import Iterator, Sequence

import jax
from absl import logging

from omniimage.sampling.events import Chunk, Codes, Image, TextEnd
from omniimage.serving.asks import Ask, Wish
from omniimage.serving.feed import Feed
from omniimage.serving.limits import Limits
from omniimage.serving.metrics import ROWS, Metrics
from omniimage.serving.refusals import Busy, Refused
from omniimage.serving.studio import Shape, Step, Studio

FAILED = "the answer could not be computed; the server's log says why"
STOPPING = "the server is being stopped; ask again later"
USUAL_SECONDS = 2.0  # that a work takes, before any was measured
MOST_SECONDS = 120  # that anybody is told to wait


class Work:
  """Asks of one shape that are computed together.

  Attributes:
    program: what is compiled for it: the shape, and how many rows.
    compiles: whether it is of the thread that compiles.
    whole: whether it has come to its end.
  """

  def __init__(self, asks: Sequence[Ask], rows: int, steps: Iterator[Step], compiles: bool):
    self.asks, self.program, self.compiles, self._steps = list(asks), (asks[0].shape, rows), compiles, steps
    self.whole, self._began = False, time.monotonic()

  @property
  def left(self) -> bool:
    """Whether nobody listens any more."""
    return all(ask.feed.left for ask in self.asks)

  @property
  def rests(self) -> bool:
    """Whether all who listen have enough to read. Those who have left are seen to at once."""
    listening = [ask for ask in self.asks if not ask.feed.left]
    return bool(listening) and all(ask.feed.behind for ask in listening)

  @property
  def seconds(self) -> float:
    return time.monotonic() - self._began

  def step(self, metrics: Metrics) -> bool:
    """Computes the next step and hands it out; False where there is none."""
    if self.left:
      self._steps.close()
      return False
    step = next(self._steps, None)
    if step is None:
      self.whole = True
      return False
    for ask, items in zip(self.asks, step):
      if not ask.feed.left:
        for item in items:
          _observe(metrics, ask, item)
          ask.feed.put(ask.number, item)
    return True

  def end(self, error: Exception | None = None):
    self._steps.close()
    for ask in self.asks:
      ask.feed.end(error)


class Engine:
  """Answers what is submitted, as many together as can be.

  Attributes:
    compiled, to_compile: programs of the start, that are there and altogether.
  """

  def __init__(self, studio: Studio, limits: Limits, metrics: Metrics | None = None):
    self.studio, self.limits, self.metrics = studio, limits, metrics or Metrics()
    self._waiting: collections.deque[Ask] = collections.deque()
    self._works: collections.deque[Work] = collections.deque()
    self._under_way: set[Work] = set()  # these, and those that a thread has taken from them
    self._programs: set[tuple[Shape, int]] = set()
    self._changed, self._closing = threading.Condition(), False
    self._seconds = USUAL_SECONDS  # that a work takes, of late
    self._start: collections.deque[tuple[Wish, Shape, int]] = collections.deque()
    self.compiled = self.to_compile = 0
    self.metrics.gauge("waiting", lambda: len(self._waiting))
    self.metrics.gauge("works", lambda: self.works)
    self.metrics.gauge("programs", lambda: len(self._programs))
    self._threads = [
      threading.Thread(target=self._run, args=(compiles,), daemon=True, name=name)
      for name, compiles in (("engine", False), ("engine that compiles", True))
    ]

  @property
  def works(self) -> int:
    """Batches and sessions that have been begun."""
    return len(self._under_way)

  @property
  def waiting(self) -> int:
    return len(self._waiting)

  @property
  def ready(self) -> bool:
    """Whether all that is compiled at start is there."""
    return self.compiled == self.to_compile

  def start(self, compile_first: bool = True):
    """Begins, with the usual programs unless `compile_first` is off. Requests may come at once."""
    self._start = collections.deque(self.studio.usual() if compile_first else ())
    self.to_compile = len(self._start)
    for thread in self._threads:
      thread.start()

  def close(self, seconds: float = 10.0):
    """Ends after the steps that are computed now, for which it waits so long. All who listen are told at once."""
    with self._changed:
      self._closing = True
      for ask in (*self._waiting, *(ask for work in self._under_way for ask in work.asks)):
        ask.feed.end(Refused(STOPPING, 503))
      self._changed.notify_all()
    for thread in self._threads:
      if thread.is_alive():
        thread.join(seconds)

  def feed(self, answers: int) -> Feed:
    """One for so many answers, to be made in the event loop."""
    return Feed(answers, self.limits.unread, self._look)

  def submit(self, wishes: Sequence[Wish], shape: Shape, feed: Feed):
    """Puts wishes of one shape into the queue, all or none. Raises Busy."""
    asks = [Ask(wish, feed, number, shape) for number, wish in enumerate(wishes)]
    with self._changed:
      self._drop_left()
      if self._closing:
        raise Refused(STOPPING, 503)
      if len(self._waiting) + len(asks) > self.limits.waiting:
        self.metrics.count("refused_total")
        raise Busy(len(self._waiting), self._patience())
      self._waiting.extend(asks)
      self._changed.notify_all()

  def _patience(self) -> int:
    """Seconds after which there should be a place again."""
    ahead = len(self._waiting) / self.studio.rows + self.works
    return max(1, min(MOST_SECONDS, round(ahead * self._seconds / self.limits.works)))

  def _look(self):
    with self._changed:
      self._changed.notify_all()

  def _run(self, compiles: bool):
    while True:
      with self._changed:
        while not self._closing and (work := self._next(compiles)) is None:
          self._changed.wait()
        if self._closing:
          return
      try:
        more, error = work.step(self.metrics), None
      except Exception as raised:
        more, error = False, raised
      with self._changed:
        if more:
          self._works.append(work)
        else:
          self._done(work, error)
        self._changed.notify_all()

  def _next(self, compiles: bool) -> Work | None:
    """The work that is to be advanced next, for the thread that compiles, or for the other: one that begins, so that
    it takes turns with those that have."""
    self._drop_left()
    under_way = sum(work.compiles == compiles for work in self._under_way)
    if under_way < self.limits.works and (work := self._begun(compiles)) is not None:
      return work
    for _ in range(len(self._works)):
      work = self._works.popleft()
      if work.compiles == compiles and (work.left or not work.rests):
        return work
      self._works.append(work)
    return self._compiling() if compiles and self._start and not under_way else None

  def _begun(self, compiles: bool) -> Work | None:
    """A work of those who wait: the first that this thread may begin, and all who can be drawn with it."""
    for shape in dict.fromkeys(ask.shape for ask in self._waiting):
      compiled = sorted(rows for known, rows in self._programs if known == shape)
      if bool(compiled) == compiles:
        continue
      most = (compiled[-1] if compiled else self.studio.rows) if shape.is_drawing else 1
      asks = [ask for ask in self._waiting if ask.shape == shape][:most]
      self._waiting = collections.deque(ask for ask in self._waiting if ask not in asks)
      self.metrics.observe("rows", len(asks), ROWS)
      return self._work(
        asks, next((rows for rows in compiled if rows >= len(asks)), _power_of_two(len(asks))), compiles
      )
    return None

  def _compiling(self) -> Work:
    wish, shape, rows = self._start.popleft()
    return self._work([Ask(wish, Unheard(), 0, shape)], rows, compiles=True)

  def _work(self, asks: Sequence[Ask], rows: int, compiles: bool) -> Work:
    work = Work(asks, rows, self.studio.grant([ask.wish for ask in asks], asks[0].shape, rows), compiles)
    self._under_way.add(work)
    return work

  def _done(self, work: Work, error: Exception | None):
    self._under_way.discard(work)
    if error is not None:
      logging.error("an answer has failed", exc_info=error)
    for ask in work.asks:
      if isinstance(ask.feed, Unheard):
        self.compiled += 1
      else:
        outcome = "left" if ask.feed.left else "whole" if work.whole else "failed"
        self.metrics.count("answers_total", {"outcome": outcome})
    work.end(error if error is None or isinstance(error, Refused) else Refused(FAILED, 500))
    if work.whole:
      self._seconds += (work.seconds - self._seconds) / 8
      self._programs.add(work.program)
    if len(self._programs) > self.limits.programs:
      self._programs.clear()
      jax.clear_caches()

  def _drop_left(self):
    if any(ask.feed.left for ask in self._waiting):
      self._waiting = collections.deque(ask for ask in self._waiting if not ask.feed.left)


class Unheard:
  """The feed of what is computed to be compiled alone."""

  left = behind = False

  def put(self, number: int, item: object):
    pass

  def end(self, error: Exception | None = None):
    pass


def _observe(metrics: Metrics, ask: Ask, item: object):
  """Times from when it was asked for."""
  match item:
    case _ if isinstance(ask.feed, Unheard):
      return
    case Codes(first=0):
      name = "first_token_seconds"
    case Chunk(place=(0, 0)):
      name = "first_chunk_seconds"
    case Image():
      metrics.count("images_total")
      name = "image_seconds"
    case TextEnd():
      name = "text_seconds"
    case _:
      return
  metrics.observe(name, time.monotonic() - ask.since)


def _power_of_two(n: int) -> int:
  return 1 << (n - 1).bit_length()
