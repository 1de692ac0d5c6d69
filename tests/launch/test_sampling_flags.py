"""Flags of sampling: what the run says unless asked, and a word where the painter has not learnt it."""

import pytest
from absl import flags

from launch import sampling_flags
from omniimage.settings import SettingsError
from tests import small


@pytest.fixture
def given(monkeypatch):
  """Sets flags by name, for one test."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()

  def give(**values):
    for name, value in values.items():
      monkeypatch.setattr(sampling_flags.HOLDERS[name]._flagvalues[name], "value", value)

  for name in sampling_flags.HOLDERS:
    give(**{name: None})
  return give


def test_without_flags_the_run_samples_as_it_says(given, capsys):
  s = small.settings()
  assert sampling_flags.overridden(s) == s and not capsys.readouterr().err


@pytest.mark.parametrize("chunk_rows", [0, 1, 4])
def test_rows_that_were_never_trained_are_painted_with_one_line_of_warning(given, capsys, chunk_rows):
  given(chunk_rows=chunk_rows)
  assert sampling_flags.overridden(small.settings()).sampling.chunk_rows == chunk_rows
  said = capsys.readouterr().err
  assert said.startswith(f"warning: --chunk_rows={chunk_rows} was never trained") and said.count("\n") == 1


@pytest.mark.parametrize("chunk_rows, painted", [(2, 2), (-1, 2)])
def test_rows_that_were_trained_need_no_warning(given, capsys, chunk_rows, painted):
  given(chunk_rows=chunk_rows, temperature=0.5)
  sampling = sampling_flags.overridden(small.settings()).sampling
  assert (sampling.chunk_rows, sampling.temperature) == (painted, 0.5) and not capsys.readouterr().err


def test_rows_that_the_canvas_does_not_divide_into_are_refused(given):
  given(chunk_rows=3)
  with pytest.raises(SettingsError, match="must divide the canvas's 4 patch rows"):
    sampling_flags.overridden(small.settings())
