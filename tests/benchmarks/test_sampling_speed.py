import pytest

from tests.benchmarks.without_flags import load

sampling = load("sampling")


class Side:
  """Answers with the next of its seconds."""

  def __init__(self, *seconds):
    self.left = list(seconds)

  def seconds(self, *task):
    return self.left.pop(0)


def test_the_sides_take_turns_and_the_round_that_compiles_is_not_counted(monkeypatch):
  monkeypatch.setattr(sampling, "ROUNDS", type("Flag", (), {"value": 2}))
  monkeypatch.setattr(sampling, "TOKENS", type("Flag", (), {"value": 100}))
  tasks = [("sample", "float32", 8), ("context", "float32", 4096)]
  sides = {"ours": Side(99, 99, 4, 1.6, 8, 3.2), "theirs": Side(99, 99, 8, 3.2, 10, 3.2)}
  sides["others"] = Side(99, None, 12, None, 16, None)  # which has no such context
  seconds = sampling.measured(sides, tasks)
  assert seconds[tasks[0]] == {"ours": [4, 8], "theirs": [8, 10], "others": [12, 16]}
  *_, sample, context = sampling.table(seconds).split("\n")
  assert sample == "| tokens/s, batch 8, float32 | 200.00 (133.33) | 100.00 (88.89) | 66.67 (57.14) | 2.00, 3.00 |"
  assert context == "| ms a token, context 4,096, float32 | 100.0 (150.0) | 200.0 (200.0) |  | 2.00,  |"
  assert sampling.described("train", "float32", 8) == ("training images/s, batch 8, float32", 8, True)


def test_the_other_side_ending_is_an_error(monkeypatch, tmp_path):
  python = tmp_path / "python"
  python.write_text("#!/bin/sh\nread line\n")
  python.chmod(0o755)
  for name, value in (("TORCH_PYTHON", str(python)), ("TOKENS", 16), ("THREADS", 1)):
    monkeypatch.setattr(sampling, name, type("Flag", (), {"value": value}))
  with sampling.Theirs("torch_llama.py") as theirs, pytest.raises(RuntimeError, match="while it measured sample 8"):
    theirs.seconds("sample", "float32", 8)
