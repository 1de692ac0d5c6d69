"""The flags of launch.prepare: what is asked for reaches the work, and what cannot be is one line before it."""

import json
import os

import pytest

from omniimage.prepare import prepare as module
from tests.launch import in_process

PICTURES = "--source=pictures"


@pytest.fixture
def began(monkeypatch, tmp_path):
  """Requests, of commands in a folder with a folder of pictures."""
  requests = []
  monkeypatch.setattr(module, "prepare", lambda request, say: requests.append(request))
  monkeypatch.chdir(tmp_path)
  (tmp_path / "pictures").mkdir()
  return requests


def refused(capsys, *args) -> str:
  with pytest.raises(SystemExit) as end:
    in_process.call("prepare", *args)
  said = capsys.readouterr().err
  assert end.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1, said
  return said


def test_every_flag_reaches_the_work(began, tmp_path):
  in_process.call(
    "prepare", PICTURES, "--out=~/made", "--format=folder", "--image_column=file", "--caption_column=a, b",
    "--caption_column={c} in {d}", "--split_column=part", "--metadata=list.csv", "--map=a {b}=user",
    "--map=image=assistant", "--held_out=0.25", "--workers=3", "--name=my_set", "--licence=CC BY, see LICENSE",
    "--shard_bytes=5000",
  )  # fmt: skip
  (request,) = began
  assert request.source == str(tmp_path / "pictures") and str(request.out) == os.path.expanduser("~/made")
  assert (request.format, request.held_out, request.workers, request.shard_bytes) == ("folder", 0.25, 3, 5000)
  assert (request.name, request.licence, request.runner) == ("my_set", "CC BY, see LICENSE", "")
  given = request.given
  assert (given.image_column, given.split_column, given.metadata) == ("file", "part", "list.csv")
  assert given.caption_columns == ("a, b", "{c} in {d}") and list(given.mapping.items()) == [
    ("a {b}", "user"),
    ("image", "assistant"),
  ]


def test_two_flags_are_enough(began):
  in_process.call("prepare", PICTURES, "--out=made")
  (request,) = began
  assert request.format is None and request.held_out == 0.05 and request.workers >= 1
  assert not any(vars(request.given).values())


@pytest.mark.parametrize(
  ("typed", "meant"),
  [
    ("pictures", "{}/pictures"),
    ("./pictures/", "{}/pictures"),
    ("pictures/{000..012}.tar", "{}/pictures/{{000..012}}.tar"),
    ("pictures/*.tar", "{}/pictures/*.tar"),
    ("coco_captions/2014", "coco_captions/2014"),
    ("scenes:3", "scenes:3"),
    ("tfds:cifar10", "tfds:cifar10"),
  ],
)
def test_a_source_is_a_path_from_the_root_or_the_name_of_a_data_set(began, tmp_path, typed, meant):
  in_process.call("prepare", f"--source={typed}", "--out=made")
  assert began[0].source == meant.format(tmp_path)


def test_the_options_of_a_runner_follow_two_dashes(began):
  in_process.call("prepare", PICTURES, "--out=made", "--runner=DirectRunner", "--", "--direct_num_workers=2")
  assert began[0].runner == "DirectRunner" and began[0].runner_options == ("--direct_num_workers=2",)


@pytest.mark.parametrize(
  ("args", "said"),
  [
    ([], "--source"),
    ([PICTURES], "--out"),
    (["--out=made"], "--source"),
    ([PICTURES, "--out=made", "more"], "'more' is not a flag"),
    ([PICTURES, "--out=made", "--", "--project=a"], "--project=a"),
    ([PICTURES, "--out=gs://bucket/made"], "gs://"),
    (["--source=s3://bucket/pictures", "--out=made"], "s3://"),
    ([PICTURES, "--out=made", "--caption_colum=text"], "caption_colum"),
    ([PICTURES, "--out=made", "--caption_column="], "--caption_column"),
    ([PICTURES, "--out=made", "--name=My Set"], "--name"),
    ([PICTURES, "--out=made", "--name=../up"], "--name"),
    ([PICTURES, "--out=made", "--map=image:assistant"], "--map"),
    ([PICTURES, "--out=made", "--map=image="], "--map"),
    ([PICTURES, "--out=made", "--map="], "--map"),
    ([PICTURES, "--out=made", "--held_out=1"], "--held_out"),
    ([PICTURES, "--out=made", "--held_out=5%"], "--held_out"),
    ([PICTURES, "--out=made", "--workers=0"], "--workers"),
    ([PICTURES, "--out=made", "--licence=\udcff"], "--licence"),
    ([PICTURES, "--out=made", "--caption_column=\udcff"], "--caption_column"),
  ],
)
def test_a_flag_that_cannot_be_is_named_before_the_work(began, capsys, args, said):
  assert said in refused(capsys, *args)
  assert began == []


def test_a_mistake_in_a_source_is_one_line_and_leaves_nothing(capsys, tmp_path, monkeypatch):
  from omniimage.data import formats
  from omniimage.errors import UserError

  def none(source, name, given):
    raise UserError(f"{source} is not there")

  monkeypatch.setattr(formats, "open_format", none, raising=False)
  assert "is not there" in refused(capsys, f"--source={tmp_path}/nowhere", f"--out={tmp_path}/made")
  assert not (tmp_path / "made").exists()


def test_a_command_makes_a_data_set(capsys, tmp_path, monkeypatch):
  from omniimage.data import formats
  from tests.prepare import fake_format

  monkeypatch.setattr(formats, "open_format", fake_format.open_fake, raising=False)
  source = fake_format.write(tmp_path / "source", {"a": fake_format.rows(0, 5)})
  in_process.call("prepare", f"--source={source}", f"--out={tmp_path}/made", "--held_out=0", "--licence=mine")
  said = capsys.readouterr().out
  assert "a.json:0: picture 0" in said and "train: 5 records" in said and f"{tmp_path}/made/report.html" in said
  assert json.loads((tmp_path / "made" / "dataset.json").read_text())["licence"] == "mine"


@pytest.fixture
def encodes(monkeypatch, began):
  from omniimage.prepare import tokenize

  monkeypatch.setattr(tokenize, "tokenize", lambda request, say: began.append(request))
  return began


def test_the_flags_of_codes_reach_the_work(encodes, tmp_path):
  of_codes = "--source=pictures", "--tokenize=run", "--out=codes"
  in_process.call("prepare", *of_codes, "--variants=whole,part,part", "--workers=3")
  in_process.call("prepare", *of_codes)
  request, plain = encodes
  assert (request.source, request.workdir, request.out) == tuple(
    tmp_path / name for name in ("pictures", "run", "codes")
  )
  assert (request.variants, request.threads, plain.variants) == (("whole", "part", "part"), 3, ("whole",))


@pytest.mark.parametrize(
  ("args", "said"),
  [
    (["--tokenize=run", "--format=folder"], "--format is of a conversion"),
    (["--tokenize=run", "--held_out=0.1"], "--held_out is of a conversion"),
    (["--tokenize=run", "--variants=whole,mirrored"], "'mirrored' is none; there are whole, flipped, part"),
    (["--tokenize=run", "--variants=flipped,flipped"], "flipped is the same each time"),
    (["--tokenize=run", "--variants="], "--variants is empty"),
    (["--tokenize=gs://bucket/run"], "gs://"),
    (["--variants=flipped"], "give --tokenize=WORKDIR too"),
  ],
)
def test_a_flag_of_codes_that_cannot_be_is_named_before_the_work(encodes, capsys, args, said):
  assert said in refused(capsys, PICTURES, "--out=made", *args)
  assert encodes == []


def test_a_run_or_a_data_set_that_is_not_there_is_one_line(capsys, tmp_path):
  codes = f"--tokenize={tmp_path}/run", f"--out={tmp_path}/codes"
  assert "there is no such folder" in refused(capsys, f"--source={tmp_path}/none", *codes)
  assert not (tmp_path / "codes").exists()
