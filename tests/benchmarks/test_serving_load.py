"""The load that benchmarks/serving.py puts on a server: what it asks, what it counts, what must be refused."""

import itertools
import time

import numpy as np
import pytest

from omniimage.data.scenes.captions import caption, parse
from omniimage.data.scenes.world import scene_of
from omniimage.serving.limits import Limits
from tests.benchmarks.without_flags import load
from tests.serving.served import FakeGenerator, fake_studio, serving

benchmark = load("serving")


class Slow(FakeGenerator):
  def _computed(self, item):
    time.sleep(0.02)
    return super()._computed(item)


def asked():
  """Captions of one object, and what they ask for."""
  for index in itertools.count():
    told = caption(scene_of(index, "test", grid=2, min_objects=1, max_objects=1), np.random.default_rng(index))
    yield told, parse(told, 2)


@pytest.fixture
def server(tmp_path):
  with serving(fake_studio(Slow()), tmp_path / "kept", Limits(waiting=1, works=1)) as served:
    yield benchmark.Server(served.port, process=None, log=None)


def test_every_kind_of_malformed_request_is_a_clear_refusal(server):
  statuses = list(benchmark.malformed(server, 3 * len(benchmark.KINDS)))
  assert [status for status in statuses if not 400 <= status < 500] == []
  tally = benchmark.Tally()
  benchmark.draw(server, next(asked()), 0, tally)
  assert tally.pictures == 1, "it still draws"


def test_what_comes_is_timed_in_order_and_graded_by_what_was_asked(server):
  tally = benchmark.Tally()
  benchmark.draw(server, next(asked()), 8, tally)
  (tokens,), (chunk,), (image,) = tally.moments.values()
  assert 0 < tokens <= chunk <= image and (tally.objects, tally.bound, tally.whole) == (1, 0, 0)


def test_clients_at_once_lose_nothing_and_come_back_where_they_are_told_to(server):
  many = benchmark.load(server, asked(), clients=12, seconds=1.0)
  assert not many.lost and many.pictures >= 3 and many.put_off
  assert "| lost | 0 | 0 |" in benchmark.table(many, many, 12)
