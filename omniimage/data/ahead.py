"""Reading ahead of the training loop: in threads of this process, or in processes of their own."""

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

AHEAD = 4  # items that threads read ahead
AHEAD_OF_A_WORKER = 2  # items that each process does
WATCH_SECONDS = 1.0


def read_ahead(
  read: Callable[[int], Any], start: int, stop: int, *, workers: int = 0, threads: int = 2, ahead: int = AHEAD
) -> Iterator[Any]:
  """`read(i)` for i from `start` up to `stop`, in order, read by so many worker processes, or by threads where there
  are none. Closing the iterator ends them.

  Workers are started afresh ("spawn") and are given `read`, which must pickle. What they read comes back through
  shared memory.
  """
  items = grain.MapDataset.range(start, stop).map(read)
  if workers:
    if not flags.FLAGS.is_parsed():  # in a notebook; Grain asks its own flags
      flags.FLAGS.mark_as_parsed()
    # One thread each: processes are what reads in parallel here.
    dataset = items.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=1)).mp_prefetch(
      grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=AHEAD_OF_A_WORKER), begin_worker
    )
  else:
    dataset = items.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
  iterator = iter(dataset)
  try:
    yield from map(_own, iterator) if workers else iterator
  finally:
    iterator.close()
    del iterator
    if workers:
      gc.collect()  # Grain's last items are in cycles; shared memory that is not let go before the end makes a warning


def _own(item: Any) -> Any:
  """The item in memory of this process, so that the shared memory goes back at once."""
  return jax.tree.map(lambda leaf: np.array(leaf) if isinstance(leaf, np.ndarray) else leaf, item)


def begin_worker(number: int, count: int):
  """What a worker does first. It goes on reading while the run, asked to stop, saves; and it ends with the run, however
  that ends."""
  for ended_by in (signal.SIGINT, signal.SIGTERM):  # a terminal and a scheduler send these to all of a run's processes
    signal.signal(ended_by, signal.SIG_IGN)
  os.environ["JAX_PLATFORMS"] = "cpu"  # should a source use JAX: the accelerator is the run's
  threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True, name="end with the run").start()


def _end_with(parent: int):
  while os.getppid() == parent:
    time.sleep(WATCH_SECONDS)
  os._exit(0)
