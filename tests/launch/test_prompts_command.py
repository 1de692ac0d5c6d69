"""launch.sample --prompts: a picture a line, by any number of processes, whatever stops them."""

import json
import signal

import pytest

from tests.launch import in_process
from tests.launch.random_run import random_run
from tests.process_of_a_run import Run

PROMPTS = [{"prompt": f"a {size} {color} star", "seed": i} for i, (size, color) in enumerate(
  (size, color) for size in ("large", "small") for color in ("red", "blue", "green", "yellow", "white", "black")
)]  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp("run")
  random_run(path, **{"prior.depth": 1, "decoder.depth": 1})
  return path


@pytest.fixture
def refused(capsys, tmp_path):
  """The line with which launch.sample refuses."""

  def refused(*args) -> str:
    with pytest.raises(SystemExit) as end:
      in_process.call("sample", f"--out={tmp_path / 'out'}", *args)
    said = capsys.readouterr().err
    assert end.value.code == 2 and said.startswith("error: ") and said.count("\n") == 1, said
    return said

  return refused


def prompts_file(folder, lines):
  path = folder / "prompts.jsonl"
  path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
  return path


def contents(folder) -> dict[str, bytes]:
  return {path.name: path.read_bytes() for path in folder.glob("*.png")}


def test_a_bad_line_is_named_before_the_run_is_read(refused, tmp_path):
  path = prompts_file(tmp_path, [{"prompt": "a star"}, {"prompt": ""}])
  assert f"{path}, line 2: the prompt is missing or empty" in refused("--workdir=/tmp/never", f"--prompts={path}")
  assert not (tmp_path / "out").exists()


def test_a_prompt_that_is_too_long_is_named_before_anything_is_compiled_or_written(refused, tmp_path, workdir):
  path = prompts_file(tmp_path, [{"prompt": "a star"}, {"prompt": "a large red star and " * 40}])
  assert f"{path}, line 2: the prompt has" in refused(f"--workdir={workdir}", f"--prompts={path}")
  assert not (tmp_path / "out").exists()


def test_flags_of_a_single_picture_and_of_a_file_are_told_apart(refused, tmp_path, workdir):
  given = f"--workdir={workdir}", f"--prompts={prompts_file(tmp_path, PROMPTS)}"
  assert "--prompt is of a single picture, and --prompts draws one a line" in refused(*given, "--prompt=a star")
  assert "--num_images is of a single picture" in refused(*given, "--num_images=2")
  assert "--batch is of --prompts" in refused(f"--workdir={workdir}", "--prompt=a star", "--batch=2")
  assert "--batch=0: must be from 1 to 1,024" in refused(*given, "--batch=0")


def test_two_processes_of_which_one_is_killed_draw_what_one_draws(tmp_path, workdir, monkeypatch, capsys):
  """Each with two devices; the pytest's has eight. To the bit, since a device has two rows everywhere."""
  given = f"--workdir={workdir}", f"--prompts={prompts_file(tmp_path, PROMPTS)}", "--batch=2"
  two = *given, f"--out={tmp_path / 'two'}"
  monkeypatch.setenv("DIE_AFTER", "1:2")
  with Run(2, *two, module="tests.drawn.mortal") as run:
    assert run.codes(200) == [75, -signal.SIGKILL], run.said()
    assert "error: process 1" in run.said()[0]
  there = contents(tmp_path / "two")
  assert 2 <= len(there) < len(PROMPTS)
  monkeypatch.delenv("DIE_AFTER")
  with Run(2, *two, module="tests.drawn.mortal") as run:
    assert run.codes(200) == [0, 0], run.said()
    assert f"12 pictures, {12 - len(there)} of them drawn now, at step 1" in run.said()[0]
  in_process.call("sample", *given, f"--out={tmp_path / 'one'}")
  assert "12 pictures, 12 of them drawn now" in capsys.readouterr().out
  assert (
    contents(tmp_path / "one") == contents(tmp_path / "two") and there.items() <= contents(tmp_path / "one").items()
  )
  assert len(set(contents(tmp_path / "one").values())) == len(PROMPTS)
