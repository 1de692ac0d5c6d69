"""Tasks as an Apache Beam pipeline, for a collection that is larger than one machine.

The folder of the output must be one that every worker sees by the same path. As in processes of one machine a task
writes its files whole and is skipped where they are there, so a pipeline that was stopped is run again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omniimage.errors import UserError
from omniimage.prepare.tasks import Task, Work, tell_nobody


@dataclass(frozen=True)
class _Alone:
  """Does a task where nobody asks how far it is."""

  work: Work

  def __call__(self, task: Any):  # of Beam's own checks of types, which know no protocols
    self.work(task, tell_nobody)


def run(work: Work, tasks: Sequence[Task], runner: str, options: Sequence[str]):
  """Does the tasks. UserError if Beam is not installed, does not know the runner, or the pipeline fails."""
  try:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
  except ImportError:
    raise UserError(f'--runner={runner} needs Apache Beam: pip install "omniimage[beam]"') from None
  try:
    with beam.Pipeline(runner=runner, options=PipelineOptions(list(options))) as pipeline:
      # Without Reshuffle one worker would do all of what `Create` makes.
      _ = pipeline | beam.Create(tasks) | beam.Reshuffle() | beam.Map(_Alone(work))
  except Exception as error:  # of any runner
    lines = str(error).strip().splitlines() or [repr(error)]
    raise UserError(f"--runner={runner}: {lines[0]}; what is done is kept: mend that and run the same again") from error
