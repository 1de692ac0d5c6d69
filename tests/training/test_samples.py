"""Sample sheets: records that cannot be drawn are passed over, and none of them ends a run."""

import types

import jax
import numpy as np
import pytest
from PIL import Image

from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.sources.source import Catalogue
from omniimage.data.tasks import TextToImage
from omniimage.training import samples
from tests import process_that_draws, small
from tests.process_of_a_run import Run

SIZE = small.settings().data.image_size
STATE = types.SimpleNamespace(averaged={}, step=0)  # before anything is trained


def asking(index: int, size: int = SIZE, text: str = "a star") -> list:
  return [
    TextTurn(f"{text} {index}" if text else "", False),
    ImageTurn(np.full((size, size, 3), index, np.uint8), True),
  ]


def unreadable(index: int):
  raise OSError(f"no record {index}")


KINDS = {
  "unreadable": unreadable,
  "text alone": lambda index: [TextTurn("a star", True)],
  "image to text": lambda index: [ImageTurn(asking(index)[1].image, False), TextTurn("a star", True)],
  "no words": lambda index: asking(index, text=""),
  "of another size": lambda index: asking(index, size=SIZE + 1),
  "too long a prompt": lambda index: asking(index, text="star " * 99),
  "seen before": lambda index: asking(0),
}


class Records:
  """A source of `count` records; those at the indices of `odd` are of some other kind. Counts what is read."""

  def __init__(self, count: int, odd=(), kind: str = "unreadable"):
    self.count, self.odd, self.kind, self.read = count, set(odd), KINDS[kind], []

  def __len__(self) -> int:
    return self.count

  def catalogue(self) -> Catalogue:
    return Catalogue(np.full(self.count, 20), np.ones(self.count, int))

  def record(self, index: int, rng: np.random.Generator) -> list:
    self.read.append(index)
    return self.kind(index) if index in self.odd else asking(index)

  def task(self, index: int) -> TextToImage:
    return TextToImage()


def system():
  """A system that draws nothing."""
  generator = types.SimpleNamespace(load=lambda params: None)
  return types.SimpleNamespace(settings=small.settings(), generator=lambda *_: generator, columns=lambda *_: {})


@pytest.fixture
def write(monkeypatch, tmp_path):
  """Writes sheets of these sources before anything is trained; returns the last one's captions, [] without sheets."""
  drawn = []

  def sheet(columns, captions):
    drawn[:] = captions
    return Image.new("RGB", (1, 1))

  monkeypatch.setattr(samples, "sheet", sheet)

  def write(*sources, sheets: int = 1) -> list[str]:
    writer = samples.SampleSheets(system(), small.text_tokenizer(), sources, tmp_path)
    drawn.clear()
    for number in range(sheets):
      writer.write(STATE, f"{number}")
    assert len(list(tmp_path.iterdir())) == (sheets if drawn else 0)
    return list(drawn)

  return write


@pytest.mark.parametrize("kind", KINDS)
def test_records_that_cannot_be_drawn_are_passed_over_for_others(write, kind):
  odd = set(range(1, 30)) - {5, 11}
  captions = write(Records(30, odd, kind), Records(30))
  assert set(captions[:3]) == {"a star 0 (trained)", "a star 5 (trained)", "a star 11 (trained)"}
  assert len(captions) == 7 and all(caption.endswith(" (unseen)") for caption in captions[3:])


def test_those_that_were_drawn_before_are_drawn_still(write):
  captions = write(Records(100), Records(100))
  chosen = samples.candidates(range(100), 4, small.settings().seed)[:4]
  assert captions == [f"a star {i} ({kind})" for kind in ("trained", "unseen") for i in chosen]


def test_a_run_without_a_record_that_paints_has_no_sheets_and_says_so_once(write, caplog):
  everything = range(30)
  assert write(Records(30, everything, "image to text"), Records(30, everything), Records(0), sheets=3) == []
  assert caplog.text.count("no sample sheets") == 1
  assert caplog.text.count("cannot be drawn") == 1, "the unreadable ones are one line, not thirty"


def test_only_the_first_process_writes(monkeypatch, tmp_path):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  source = Records(30)
  samples.SampleSheets(system(), small.text_tokenizer(), [source, source], tmp_path).write(STATE, "sheet")
  assert source.read and not list(tmp_path.iterdir())


def test_processes_that_read_different_records_draw_no_sheets(write, monkeypatch, caplog):
  monkeypatch.setattr(samples, "from_each", lambda text: [text, "another"])
  assert write(Records(30), Records(30), sheets=2) == [] and caplog.text.count("read different records") == 1


@pytest.mark.parametrize("free, drawn", [(2 * samples.COPIES, False), (8 * samples.COPIES, True)])
def test_a_model_that_no_device_holds_is_not_drawn_with(monkeypatch, tmp_path, caplog, free, drawn):
  """A thousand parameters in float32, of which a device has room for some bytes each."""
  stats = {"bytes_limit": 10**6, "bytes_in_use": 10**6 - 1000 * free}
  state = types.SimpleNamespace(averaged={"prior": {"kernel": np.zeros((10, 100), np.float32)}}, step=0)
  monkeypatch.setattr(samples, "sheet", lambda *_: Image.new("RGB", (1, 1)))
  devices, source = jax.devices()[:2], Records(30)
  writer = samples.SampleSheets(system(), small.text_tokenizer(), [source, source], tmp_path, devices)
  monkeypatch.setattr(jax, "local_devices", lambda: [types.SimpleNamespace(memory_stats=lambda: stats)])
  writer.write(state, "sheet")
  assert bool(list(tmp_path.iterdir())) == drawn and ("of each device, which has" in caplog.text) != drawn


def test_a_sheet_of_several_processes_is_that_of_one(tmp_path):
  with Run(2, str(tmp_path / "two"), module="tests.process_that_draws") as run:
    assert run.codes(100) == [0, 0], run.said()
  process_that_draws.write_sheet(tmp_path / "one", [])
  sheets = [np.asarray(Image.open(tmp_path / name / "sheet.png"), int) for name in ("one", "two")]
  np.testing.assert_allclose(*sheets, atol=1)
  assert np.std(sheets[0]) > 10


def test_nothing_is_read_before_the_first_sheet_and_then_once(write, tmp_path):
  source = Records(30)
  samples.SampleSheets(system(), small.text_tokenizer(), [source, source], tmp_path)
  assert source.read == []
  write(source, source, sheets=3)
  assert len(source.read) == 8


def test_a_source_of_millions_is_not_read_to_its_end(write):
  source = Records(10**7, kind="image to text")
  source.odd = range(10**7)
  assert write(source, Records(0)) == [] and len(source.read) <= 300
