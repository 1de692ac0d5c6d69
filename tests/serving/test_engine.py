"""The queue: who is drawn with whom, who waits, what stops, and that nobody waits for somebody else's compiler."""

import asyncio
import threading

import pytest

from omniimage.sampling.events import Image, Text
from omniimage.serving.asks import Preview, Wish
from omniimage.serving.engine import FAILED, Engine
from omniimage.serving.limits import Limits
from omniimage.serving.refusals import Busy, Refused
from tests.chat.fake_chat import text
from tests.serving.served import FakeGenerator, compiled, fake_studio, until


def wish(studio, seed: int = 1, answer: str = "image", prompt: str = "a red star", previews=False, **changes):
  sampling = studio.settings("1:1").sampling
  if changes:
    sampling = type(sampling)(**{**vars(sampling), **changes})
  return Wish(studio.turns([prompt], "1:1"), "1:1", seed, answer, sampling, previews)


def submit(engine, *wishes):
  """In an event loop."""
  feed = engine.feed(len(wishes))
  engine.submit(wishes, engine.studio.shape(wishes[0])[0], feed)
  return feed


async def items(feed) -> list:
  return [item async for _, item in feed]


def shades(found) -> list[int]:
  return [round(float(item.pixels[0, 0, 0]) * 100) for item in found if isinstance(item, Image)]


def run(engine, act, starts: bool = True):
  """`act(engine)` in an event loop of its own, with the engine's threads under way, or begun by it."""
  if starts:
    engine.start(compile_first=False)
  try:
    return asyncio.run(asyncio.wait_for(act(engine), 60))
  finally:
    engine.close(1)


def test_who_waits_is_drawn_together_and_each_gets_its_own():
  generator = FakeGenerator()
  engine = compiled(Engine(fake_studio(generator), Limits()))

  async def act(engine):
    feeds = [submit(engine, wish(engine.studio, seed)) for seed in range(1, 8)]
    engine.start(compile_first=False)  # nothing is taken before all wait
    return [await items(feed) for feed in feeds]

  found = run(engine, act, starts=False)
  assert [shades(own) for own in found] == [[seed] for seed in range(1, 8)]
  assert [(seeds, rows) for seeds, rows, *_ in generator.calls] == [((1, 2, 3, 4), 4), ((5, 6, 7), 4)]


def test_only_equal_shapes_are_drawn_together():
  generator = FakeGenerator(**{"data.sequence_length": 160})
  engine = compiled(Engine(fake_studio(generator), Limits()))
  long = "a red star " * 30

  async def act(engine):
    feeds = [
      submit(engine, wish(engine.studio, seed, prompt=prompt)) for seed, prompt in ((1, "a"), (2, long), (3, "b"))
    ]
    engine.start(compile_first=False)
    return [await items(feed) for feed in feeds]

  assert [shades(own) for own in run(engine, act, starts=False)] == [[1], [2], [3]]
  assert [(seeds, rows) for seeds, rows, *_ in generator.calls] == [((1, 3), 2), ((2,), 1)]
  places = [call[2] for call in generator.calls]
  assert places[0] == 64 and places[1] > 64


def test_what_is_not_compiled_keeps_nobody_waiting():
  """A wish of unknown settings computes, for as long as it takes, in the thread that compiles."""
  slow, compiling = threading.Event(), threading.Event()
  generator = FakeGenerator()
  draw = generator.draw_together

  def draw_together(conversations, seeds, rows, places, **changes):
    if changes["guidance"] == 9:
      compiling.set()
      assert slow.wait(30)
    yield from draw(conversations, seeds, rows, places, **changes)

  generator.draw_together = draw_together
  engine = compiled(Engine(fake_studio(generator), Limits()))

  async def act(engine):
    cold = submit(engine, wish(engine.studio, 1, guidance=9.0))
    assert await asyncio.to_thread(compiling.wait, 30)
    others = [await items(submit(engine, wish(engine.studio, seed))) for seed in (2, 3)]
    slow.set()
    again = await items(submit(engine, wish(engine.studio, 4, guidance=9.0)))
    return [*map(shades, others), shades(await items(cold)), shades(again)]

  assert run(engine, act) == [[2], [3], [1], [4]]


def test_more_than_may_wait_is_refused_with_when_to_come_back():
  generator = FakeGenerator()
  generator.gate.clear()
  engine = compiled(Engine(fake_studio(generator, rows=1), Limits(waiting=2, works=1)))

  async def act(engine):
    first = submit(engine, wish(engine.studio, 1))
    assert await asyncio.to_thread(until, lambda: engine.works == 1)
    others = [submit(engine, wish(engine.studio, seed)) for seed in (2, 3)]
    with pytest.raises(Busy) as refused:
      submit(engine, wish(engine.studio, 4))
    generator.gate.set()
    return refused.value, [shades(await items(feed)) for feed in (first, *others)]

  busy, found = run(engine, act)
  assert busy.status == 429 and int(busy.headers["Retry-After"]) >= 1 and found == [[1], [2], [3]]


def test_several_are_taken_or_none():
  engine = compiled(Engine(fake_studio(FakeGenerator()), Limits(waiting=3)))

  async def act(engine):
    with pytest.raises(Busy):
      submit(engine, *(wish(engine.studio, seed) for seed in range(4)))
    return engine.waiting, shades(await items(submit(engine, wish(engine.studio, 5), wish(engine.studio, 6))))

  waiting, found = run(engine, act)
  assert waiting == 0 and sorted(found) == [5, 6]


def test_work_that_nobody_waits_for_stops():
  generator = FakeGenerator(says=text(*"abcdefgh"))
  generator.gate.clear()
  engine = compiled(Engine(fake_studio(generator, "free"), Limits(works=1)))

  async def act(engine):
    under_way, waiting = (submit(engine, wish(engine.studio, answer="free")) for _ in range(2))
    assert await asyncio.to_thread(until, lambda: engine.works == 1)
    under_way.leave()
    waiting.leave()
    generator.gate.set()
    assert await asyncio.to_thread(until, lambda: engine.works == engine.waiting == 0)
    return generator.steps

  assert run(engine, act) <= 1 and len(generator.calls) == 1
  assert 'answers_total{outcome="left"} 1' in engine.metrics.text()


def test_of_a_batch_those_who_stay_get_theirs():
  generator = FakeGenerator()
  generator.gate.clear()
  engine = compiled(Engine(fake_studio(generator), Limits()))

  async def act(engine):
    feeds = [submit(engine, wish(engine.studio, seed)) for seed in (1, 2)]
    engine.start(compile_first=False)
    assert await asyncio.to_thread(until, lambda: engine.works == 1)
    feeds[0].leave()
    generator.gate.set()
    return shades(await items(feeds[1]))

  assert run(engine, act, starts=False) == [2] and generator.calls[0][0] == (1, 2)


def test_a_short_answer_need_not_wait_for_a_long_one():
  generator = FakeGenerator(says=text(*"abcdefgh"))
  engine = compiled(Engine(fake_studio(generator, "free"), Limits()))

  async def act(engine):
    feeds = [submit(engine, wish(engine.studio, answer="free")) for _ in range(3)]
    engine.start(compile_first=False)
    return [len(await items(feed)) for feed in feeds]

  assert run(engine, act, starts=False) == [9] * 3 and generator.began == [0, 1, 2]


def test_a_session_whose_reader_is_slow_rests_and_others_go_on():
  generator = FakeGenerator(says=text(*"abcdefgh"))
  engine = compiled(Engine(fake_studio(generator, "free"), Limits(unread=3)))

  async def act(engine):
    slow = submit(engine, wish(engine.studio, answer="free"))
    assert await asyncio.to_thread(until, lambda: generator.steps == 3)
    quick = await items(submit(engine, wish(engine.studio, answer="free")))
    computed = generator.steps
    return computed, quick, await items(slow)

  computed, quick, slow = run(engine, act)
  assert computed == 3 + 9
  for heard in (quick, slow):
    assert "".join(item.text for item in heard if isinstance(item, Text)) == "abcdefgh" == heard[-1].text


def test_what_fails_fails_alone_and_says_nothing_of_this_machine():
  generator = FakeGenerator(says=[Text("a"), RuntimeError("/home/someone/model is broken")])
  engine = compiled(Engine(fake_studio(generator, "free"), Limits()))

  async def act(engine):
    with pytest.raises(Refused) as failed:
      await items(submit(engine, wish(engine.studio, answer="free")))
    return failed.value, shades(await items(submit(engine, wish(engine.studio, 3))))

  failed, found = run(engine, act)
  assert (str(failed), failed.status, found) == (FAILED, 500, [3])


def test_previews_are_the_rows_that_came():
  engine = compiled(Engine(fake_studio(FakeGenerator()), Limits()))

  async def act(engine):
    return await items(submit(engine, wish(engine.studio, previews=True)))

  found = [(item.top, item.pixels.shape) for item in run(engine, act) if isinstance(item, Preview)]
  assert found == [(0, (8, 16, 3)), (8, (8, 16, 3))]


def test_all_usual_programs_are_compiled_at_start():
  generator = FakeGenerator(says=text("a"))
  engine = Engine(fake_studio(generator, "free"), Limits())
  engine.start()
  try:
    assert engine.to_compile == 4 and until(lambda: engine.ready)
  finally:
    engine.close(1)
  batches = [call for call in generator.calls if len(call) == 4]
  assert [rows for _, rows, *_ in batches] == [1, 2, 4] and len(generator.calls) == 4
  assert engine._programs == {(shape, n) for _, shape, n in engine.studio.usual()}
