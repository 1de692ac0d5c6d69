"""From a source to a data set: all of it, once, whatever stops it in between; and what a person is told."""

import contextlib
import functools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from omniimage import files
from omniimage.data import formats
from omniimage.data.formats.format import Given, Row
from omniimage.data.prepared import Prepared
from omniimage.data.records import Picture, Record, Text, Turn
from omniimage.errors import UserError
from omniimage.prepare import parts, pool
from omniimage.prepare.prepare import Request, prepare
from tests.prepare import fake_format
from tests.prepare.fake_format import rows

UNITS = {
  "a": [*rows(0, 9), {"problem": "no caption: 9.txt is empty"}],
  "b": [{"seed": 3, "caption": "picture 3"}, *rows(10, 9), {"seed": 99, "caption": "odd", "broken": True}],
  "c": [{"text": "only words"}, *rows(20, 7)],
}
SMALL = {"held_out": 0.3, "shard_bytes": 2500}


@pytest.fixture(autouse=True)
def fake(monkeypatch):
  monkeypatch.setattr(formats, "open_format", fake_format.open_fake, raising=False)


@pytest.fixture
def source(tmp_path):
  return fake_format.write(tmp_path / "source", UNITS)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
  """What is made of UNITS when nothing goes wrong, by the name of the file."""
  folder = tmp_path_factory.mktemp("expected")
  return contents(fake_format.prepared(folder, UNITS, **SMALL).path)


def contents(out: Path) -> dict[str, bytes]:
  """Files of a data set; those that name its folder as if all were in one."""
  return {path.name: re.sub(rb"/[^\"]*/(source|prepared)", rb"\1", path.read_bytes()) for path in sorted(out.iterdir())}


def made(source: Path, said: list | None = None, **request) -> Prepared:
  out = request.pop("out", source.parent / "prepared")
  return prepare(Request(str(source), out, **{**SMALL, **request}), (said if said is not None else []).append)


def refused(source: Path, said: list | None = None, **request) -> str:
  with pytest.raises(UserError) as why:
    made(source, said, **request)
  assert "\n" not in str(why.value)
  return str(why.value)


def records(prepared: Prepared) -> dict[str, list[Record]]:
  return {name: [prepared.read(name, i) for i in range(s.records)] for name, s in prepared.splits.items()}


# What is in it


def test_every_record_is_in_one_split_once_and_in_order(source):
  found = records(made(source))
  keys = [record.key for split in found.values() for record in split]
  assert sorted(keys) == sorted(
    [*(f"a.json:{i}" for i in range(9)), *(f"b.json:{i}" for i in range(1, 10)), *(f"c.json:{i}" for i in range(8))]
  )
  for split in found.values():
    numbers = [(record.key[0], int(record.key.rpartition(":")[2])) for record in split]
    assert numbers == sorted(numbers) and len(split) > 2


def test_a_picture_is_in_one_split_whatever_its_captions(tmp_path):
  twice = [{"seed": i, "caption": words} for i in range(30) for words in ("one", "two", "one")]
  found = records(fake_format.prepared(tmp_path, {"a": twice}, **SMALL))
  train, test = ({record.images for record in found[split]} for split in ("train", "test"))
  assert len(train) + len(test) == 30 and train and test
  assert sum(map(len, found.values())) == 60  # the same picture with other words is another record


def test_a_split_that_the_source_gives_is_kept(tmp_path):
  units = {"a": [*rows(0, 5, split="test"), *rows(5, 5, split="train")]}
  found = records(fake_format.prepared(tmp_path, units, held_out=0.9))
  assert [record.key for record in found["test"]] == [f"a.json:{i}" for i in range(5)]
  assert len(found["train"]) == 5


def test_every_row_that_is_left_out_is_listed_with_its_reason(source):
  said = []
  out = made(source, said).path
  listed = [json.loads(line) for line in (out / "dropped.jsonl").read_text().splitlines()]
  assert [(row["key"], row["reason"].partition(":")[0]) for row in listed] == [
    ("a.json:9", "no caption"), ("b.json:10", "no picture"), ("b.json:0", "duplicate")
  ]  # fmt: skip
  assert listed[0]["reason"] == "no caption: 9.txt is empty" and "a.json:3" in listed[2]["reason"]
  told = json.loads((out / "dataset.json").read_text())
  assert told["dropped"] == {"no caption": 1, "no picture": 1} and told["duplicates"] == 1
  assert any("1 records are the same" in line for line in said) and any("2 of 29 rows" in line for line in said)


def test_what_is_no_record_is_dropped_and_not_stored(tmp_path, monkeypatch):
  picture = fake_format.picture(0)
  bad = [
    Record("turns", (Turn("assistant", (Picture(1),)),), (picture,)),
    Record("role", (Turn("system", (Text(("a",)),)),)),
    Record("large", (Turn("assistant", (Picture(0),)),), (picture * 9,)),
  ]
  monkeypatch.setattr(parts, "MOST_BYTES", 5 * len(picture))
  monkeypatch.setattr(
    fake_format.Fake, "rows", lambda self, unit: iter([Row("good", Record("good", (Turn("user", (Text(("a",)),)),))),
                                                       *(Row(record.key, record) for record in bad), Row("none")])
  )  # fmt: skip
  out = fake_format.prepared(tmp_path, {"a": []}, held_out=0.0).path
  assert [json.loads(line)["key"] for line in (out / "dropped.jsonl").read_text().splitlines()] == [
    "turns", "role", "large", "none"
  ]  # fmt: skip


def test_statistics_are_those_of_the_records_and_stand_in_the_report(source):
  said = []
  prepared = made(source, said)
  measures = prepared.description["statistics"]["measures"]
  heights = np.concatenate([prepared.index(name)["height"] for name in prepared.splits])
  assert measures["height, pixels"]["mean"] == heights[heights > 0].mean() == 6
  assert measures["images"]["mean"] == pytest.approx(25 / 26, abs=0.01)
  assert sum(prepared.description["statistics"]["shapes"].values()) == 25
  page = (prepared.path / "report.html").read_text()
  assert "no caption" in page and page.count("<figure>") == prepared.splits["train"].records
  assert any(line.startswith(f"train: {prepared.splits['train'].records} records") for line in said)


def test_captions_and_keys_cannot_break_the_pages(tmp_path):
  evil = "<script>alert('x')</script> & \ud800 \"quoted\"\nline"
  out = fake_format.prepared(tmp_path, {"a": [{"seed": 1, "caption": evil}]}, held_out=0.0).path
  for page in ("report.html", "first_pairs.html"):
    text = (out / page).read_text()
    assert "<script" not in text and "&lt;script&gt;" in text


def test_tfds_reads_the_same_records(source):
  prepared = made(source)
  theirs = tfds.builder_from_directory(prepared.path).as_data_source()
  for name, ours in records(prepared).items():
    assert [row["key"].decode() for row in theirs[name]] == [record.key for record in ours]
    assert [len(row["images"]) for row in theirs[name]] == [len(record.images) for record in ours]
  assert theirs["train"][0]["images"][0].shape == (6, 8, 3)


@pytest.mark.parametrize("name", ["Käse & Brot.d", "2024", "…", "a-b"])
def test_whatever_the_source_is_called_tfds_can_read_it(tmp_path, name):
  source = fake_format.write(tmp_path / name, {"a": rows(0, 2)})
  prepared = made(source, held_out=0.0)
  assert len(tfds.builder_from_directory(prepared.path).as_data_source()["train"]) == 2


# However it is run


def test_more_processes_make_the_same_files(source, expected):
  assert contents(made(source, workers=2).path) == expected


def test_it_takes_no_device_that_a_training_on_this_machine_may_hold(source):
  code = "import sys; from tests.prepare.test_preparing import made_alone; made_alone(sys.argv[1]); print(*sys.modules)"
  done = subprocess.run([sys.executable, "-c", code, str(source)], capture_output=True, text=True, check=True)
  assert "omniimage.prepare.prepare" in done.stdout.split() and "jax" not in done.stdout.split()


def made_alone(source: str):
  formats.open_format = fake_format.open_fake
  made(Path(source))


def test_beam_makes_the_same_files(source, expected):
  assert contents(made(source, runner="BundleBasedDirectRunner").path) == expected


def test_a_runner_that_beam_does_not_know_is_one_line(source):
  assert "NoRunner" in refused(source, runner="NoRunner")


def test_where_beam_is_not_installed_it_says_what_to_install(source, monkeypatch):
  monkeypatch.setitem(sys.modules, "apache_beam", None)
  assert 'pip install "omniimage[beam]"' in refused(source, runner="DirectRunner")


class Killed(BaseException):
  pass


def test_a_kill_at_any_write_leaves_what_the_same_command_completes(source, expected, monkeypatch):
  flush, out = files.flush, source.parent / "prepared"

  def dies_at(moment: int):
    count = 0

    def dying(*paths):
      nonlocal count
      count += 1
      if count == moment:
        raise Killed
      flush(*paths)

    monkeypatch.setattr(files, "flush", dying)

  for moment in range(1, 1000, 5):
    dies_at(moment)
    out = source.parent / f"{moment}" / "prepared"
    try:
      made(source, out=out)
      break
    except Killed:
      pass
    if not (out / "dataset.json").exists():
      with pytest.raises(UserError, match="run the same launch"):
        Prepared.open(out)
    monkeypatch.setattr(files, "flush", flush)
    made(source, out=out)
    assert contents(out) == expected, moment
  assert moment > 40  # it did die


def command(source: Path, *more) -> subprocess.Popen:
  argv = [f"--source={source}", f"--out={source.parent / 'prepared'}", "--held_out=0.3", "--shard_bytes=2500", *more]
  argv = [sys.executable, "-m", "tests.prepare.fake_format", *argv]
  return subprocess.Popen(
    argv,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background may be deaf to it
  )


@pytest.mark.parametrize(("number", "workers"), [("SIGKILL", 2), ("SIGTERM", 1), ("SIGINT", 2)])
def test_a_command_that_is_stopped_half_way_goes_on_when_it_is_run_again(source, expected, number, workers):
  slow = [{**row, "seconds": 20} for row in UNITS["c"]]
  fake_format.write(source, {"c": slow})
  out, process = source.parent / "prepared", command(source, f"--workers={workers}")
  end = time.monotonic() + 30
  while not all((out / "parts" / f"{part:06d}.json").exists() for part in range(2)):
    assert time.monotonic() < end and process.poll() is None, process.stderr.read()
    time.sleep(0.02)
  if number == "SIGINT":
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: workers get it too
  else:
    process.send_signal(signal.Signals[number])
  _, stderr = process.communicate()
  assert process.returncode == {"SIGKILL": -9, "SIGTERM": 75, "SIGINT": 130}[number]
  told = [line for line in stderr.splitlines() if not re.search(r"/[\d,]+ (rows|parts): ", line)]
  assert len(told) <= 1, stderr  # and no tracebacks of workers
  with pytest.raises(UserError, match="run the same launch"):
    Prepared.open(out)
  fake_format.write(source, {"c": UNITS["c"]})
  begun = json.loads((out / "parts" / "begun.json").read_text())
  begun["fingerprint"] = fake_format.Fake(str(source)).fingerprint()  # a row that takes long is the same row
  (out / "parts" / "begun.json").write_text(json.dumps(begun))
  said = []
  made(source, said)
  assert "2 of 3 parts are there already" in said
  assert contents(out) == expected


def test_a_worker_that_is_killed_is_named_and_the_same_command_goes_on(source, expected):
  kills = {**UNITS["c"][0], "signal": "SIGKILL", "once": str(source.parent / "once")}  # behind the preview
  fake_format.write(source, {"c": [kills, *UNITS["c"][1:]]})
  assert "c.json was killed" in refused(source, workers=2)
  assert contents(made(source, workers=2).path) == expected


@contextlib.contextmanager
def full_at(size: int):
  """Files cannot grow beyond so many bytes, as if the disk were full."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [3000, 40_000])  # in a part; in a shard
def test_a_full_disk_is_one_line_and_the_same_command_completes_it(source, expected, size):
  with full_at(size):
    said = refused(source)
  assert str(source.parent / "prepared") in said and "File too large" in said
  made(source)
  assert contents(source.parent / "prepared") == expected


def test_a_second_terminal_is_told_who_is_at_it(source):
  fake_format.write(source, {"a": [{**UNITS["a"][0]}, *({**row, "seconds": 1} for row in UNITS["a"][1:])]})
  process = command(source, "--workers=1")
  try:
    lock = source.parent / "prepared" / "parts" / "lock"
    end = time.monotonic() + 30
    while not (lock.exists() and lock.read_text()):
      assert time.monotonic() < end and process.poll() is None
      time.sleep(0.02)
    assert f"in use by process {process.pid}" in refused(source)
  finally:
    process.kill()
    process.communicate()


# What was begun before


def test_a_complete_one_is_told_to_be_complete_and_is_not_touched(source):
  out = made(source).path
  before, times, said = contents(out), {path: path.stat().st_mtime_ns for path in out.iterdir()}, []
  assert made(source, said, workers=2).path == out
  assert "is complete" in said[0] and len(said) == 1
  assert contents(out) == before and {path: path.stat().st_mtime_ns for path in out.iterdir()} == times


def test_a_complete_one_that_is_damaged_is_said_to_be(source):
  prepared = made(source)
  index = prepared.path / "index-train.npy"
  content = bytearray(index.read_bytes())
  content[-1] ^= 1
  index.write_bytes(content)
  assert "index-train.npy" in refused(source)


@pytest.mark.parametrize(
  "other",
  [{"held_out": 0.5}, {"name": "other"}, {"licence": "CC0"}, {"given": Given(caption_columns=("title",))},
   {"shard_bytes": 5000}, {"format": "folder"}],
)  # fmt: skip
@pytest.mark.parametrize("whole", [True, False])
def test_other_flags_do_not_mix_with_what_was_made_before(source, whole, other, monkeypatch):
  with contextlib.nullcontext() if whole else pytest.raises(UserError, match="stopped"):
    if not whole:
      monkeypatch.setattr(pool, "run", functools.partial(_one_then_stop, pool.run))
    made(source)
  before = contents(source.parent / "prepared") if whole else None
  flag = {"given": "caption_column"}.get(*other, *other)
  assert f"--{flag}=" in refused(source, **other)
  assert not whole or contents(source.parent / "prepared") == before


def _one_then_stop(run, work, tasks, *rest):
  run(work, tasks[:1], *rest)
  raise UserError("stopped")


def test_flags_that_gave_nothing_yet_may_be_corrected(tmp_path):
  source = fake_format.write(tmp_path / "source", {"a": [{"problem": "no caption: the column is empty"}] * 4})
  assert "no caption" in refused(source)
  fake_format.write(source, UNITS)
  assert made(source, given=Given(caption_columns=("title",))).splits


def test_a_source_that_changed_meanwhile_is_refused(source, monkeypatch):
  with monkeypatch.context() as patch, pytest.raises(UserError, match="stopped"):
    patch.setattr(pool, "run", functools.partial(_one_then_stop, pool.run))
    made(source)
  fake_format.write(source, {"d": rows(70, 2)})
  assert "has changed since" in refused(source)


def test_other_peoples_files_are_not_written_among(source, tmp_path):
  (tmp_path / "holiday").mkdir()
  (tmp_path / "holiday" / "notes.txt").write_text("mine")
  assert "notes.txt" in refused(source, out=tmp_path / "holiday")
  assert "is a file" in refused(source, out=tmp_path / "holiday" / "notes.txt")
  assert "lies in the source" in refused(source, out=source / "prepared")
  assert "lies in the source" in refused(source, out=source)
  assert sorted(path.name for path in (tmp_path / "holiday").iterdir()) == ["notes.txt"]
  (tmp_path / "empty").mkdir()
  (tmp_path / "empty" / ".DS_Store").touch()
  assert made(source, out=tmp_path / "empty").splits


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_line(source, tmp_path):
  (tmp_path / "closed").mkdir(mode=0o500)
  assert "cannot be written" in refused(source, out=tmp_path / "closed" / "prepared")


# What a person is told


def test_the_first_pairs_are_shown_before_the_work_begins(source, monkeypatch):
  said = []

  def begins(*_):
    assert said[1:4] == [f"a.json:{i}: picture {i}" for i in range(3)]
    assert (source.parent / "prepared" / "first_pairs.html").read_text().count("<img") == 12
    raise UserError("it began")

  monkeypatch.setattr(pool, "run", begins)
  assert refused(source, said) == "it began"


@pytest.mark.parametrize(
  ("units", "said"),
  [
    ({}, "has no rows"),
    ({"a": []}, "has no rows"),
    ({"a": [{"problem": "no caption: text is empty"}] * 3}, "3 of them for one reason: no caption"),
    ({"a": [{"problem": "no caption: text is empty"}] * 2500}, "first 250 rows"),
    ({name: [{"seed": 0, "caption": "a", "broken": True}] * 300 for name in "abcdef"}, "first 1,000 rows.*no picture"),
  ],
)
def test_it_stops_before_the_work_if_no_row_is_usable(tmp_path, monkeypatch, units, said):
  monkeypatch.setattr(pool, "run", lambda *_: pytest.fail("it began"))
  source = fake_format.write(tmp_path / "source", units)
  assert re.search(f"holds no record.*{said}", refused(source))
  with pytest.raises(UserError, match="not finished"):
    Prepared.open(tmp_path / "prepared")


def test_a_bad_first_file_is_not_the_end(tmp_path):
  units = {"a": [{"problem": "failed: HTTP 404"}] * 300, "b": rows(0, 5)}
  assert fake_format.prepared(tmp_path, units, held_out=0.0).splits["train"].records == 5


def test_nothing_to_train_on_is_an_error_and_nothing_to_test_on_a_warning(tmp_path):
  source = fake_format.write(tmp_path / "source", {"a": rows(0, 3, split="test")})
  assert "all 3 records are for tests" in refused(source)
  said = []
  assert list(
    made(fake_format.write(tmp_path / "b", {"a": rows(0, 3, split="train")}), said, out=tmp_path / "o").splits
  ) == ["train"]
  assert any(line.startswith("warning: no record is held out") for line in said)


def test_a_warning_says_where_much_is_dropped(tmp_path):
  said = []
  source = fake_format.write(tmp_path / "source", {"a": [*rows(0, 8), *[{"problem": "broken: x"}] * 2]})
  made(source, said)
  assert any(line.startswith("warning: 20% of the rows are dropped") for line in said)
