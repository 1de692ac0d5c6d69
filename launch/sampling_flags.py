"""Flags of the commands that draw: each overrides a key of the run's `sampling`, and has its range."""

import dataclasses

from launch import number_flags
from omniimage.ranges import ranges_of
from omniimage.settings import SamplingSettings

FLAGS = {
  "temperature": "Of the codes; 0 takes the likeliest.",
  "guidance": "Of the prior, against no text; 1 is none.",
  "token_guidance": "Of the painter, against no visual tokens; 1 is none.",
  "text_guidance": "Of the painter, against no text; 1 is none.",
}
HOLDERS = {
  name: number_flags.real(name, None, f"{help_text} Default: the run's own.", ranges_of(SamplingSettings)[name])
  for name, help_text in FLAGS.items()
}


def overridden(sampling: SamplingSettings) -> SamplingSettings:
  """The run's settings with those that the flags give."""
  given = {name: holder.value for name, holder in HOLDERS.items() if holder.value is not None}
  return dataclasses.replace(sampling, **given)
