"""What a request hears of its answers: threads that compute put it there, the event loop takes it.

Nobody waits for the other: a thread looks at `behind` before it computes more, and at `left` whether anybody listens.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

END = object()


class Feed:
  """Items of all answers of a request, each with the number of its answer, until all have ended."""

  def __init__(self, answers: int, unread: int, on_change: Callable[[], None] = lambda: None):
    """Made in the event loop that reads it.

    Args:
      answers: how many there will be.
      unread: items of each that may wait before those who compute rest.
      on_change: called, in the event loop, when a reader has caught up or left.
    """
    self._loop, self._queue = asyncio.get_running_loop(), asyncio.Queue()
    self.answers, self._allowed, self._on_change = answers, answers * unread, on_change
    self._put = self._taken = 0  # each is written by one side alone
    self.left = False

  @property
  def behind(self) -> bool:
    """Whether the reader has more to read than it should."""
    return self._put - self._taken >= self._allowed

  def put(self, number: int, item: Any):
    """From the thread that computes."""
    self._put += 1
    self._hand_over((number, item))

  def end(self, error: Exception | None = None):
    """An answer has ended, or failed; from any thread."""
    self._hand_over(error or END)

  def leave(self):
    """Nobody listens any more: what is not computed yet need not be."""
    self.left = True
    self._on_change()

  async def __aiter__(self) -> AsyncIterator[tuple[int, Any]]:
    """(number of the answer, item). Raises what an answer has failed with."""
    ended = 0
    while ended < self.answers:
      item = await self._queue.get()
      if item is END:
        ended += 1
      elif isinstance(item, Exception):
        raise item
      else:
        self._taken += 1
        if self._put - self._taken == self._allowed - 1:
          self._on_change()
        yield item

  def _hand_over(self, item: Any):
    with contextlib.suppress(RuntimeError):  # the loop has closed
      self._loop.call_soon_threadsafe(self._queue.put_nowait, item)
