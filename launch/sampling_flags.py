"""Flags of the commands that draw: each overrides a key of the run's `sampling`, and has its range."""

import dataclasses
import sys

from absl import flags

from omniimage.ranges import ranges_of
from omniimage.settings import SOLVERS, SamplingSettings, Settings

from . import number_flags

FLAGS = {
  "temperature": "Of codes and words; 0 takes the likeliest.",
  "top_p": "Draws from the likeliest that have this probability together; 1 is all.",
  "min_p": "Draws from those that have this share of the likeliest's probability; 0 is all.",
  "guidance": "Of the prior, against no text; 1 is none.",
  "token_guidance": "Of the painter, against no visual tokens; 1 is none.",
  "text_guidance": "Of the painter, against no text; 1 is none.",
  "guidance_from": "Time, 0 noise and 1 clean, from which the painter is guided.",
  "guidance_until": "Time until which it is.",
  "time_shift": "Above 1, more of the painter's steps are near the noise.",
}
WHOLE = {
  "top_k": "Draws from so many of the likeliest; 0 is all. Default: the run's own.",
  "chunk_rows": "Patch rows painted at a time; 0 paints the whole canvas at once, -1 as trained. Default: as trained.",
  "chunk_columns": "Patch columns painted at a time; 0 is the whole width, -1 as trained. Default: as trained.",
  "diffusion_steps": "Of the painter, a chunk. Default: the run's own.",
}
RANGES = ranges_of(SamplingSettings)
HOLDERS = {
  **{
    name: number_flags.real(name, None, f"{help_text} Default: the run's own.", RANGES[name])
    for name, help_text in FLAGS.items()
  },
  **{name: number_flags.whole(name, None, help_text, RANGES[name]) for name, help_text in WHOLE.items()},
}
HOLDERS["solver"] = flags.DEFINE_enum(
  "solver",
  None,
  SOLVERS,
  "How the painter's steps are taken; heun asks the network twice each. Default: the run's own.",
)


def overridden(settings: Settings) -> Settings:
  """The run's settings with the sampling that the flags give. SettingsError where a value cannot be; a warning where
  the painter has not learnt to paint so many rows at a time."""
  given = {name: holder.value for name, holder in HOLDERS.items() if holder.value is not None}
  settings = dataclasses.replace(settings, sampling=dataclasses.replace(settings.sampling, **given))
  if not settings.paints_as_trained:
    sampling = settings.sampling
    across = f" --chunk_columns={sampling.chunk_columns}" if sampling.chunk_columns else ""
    print(
      f"warning: --chunk_rows={sampling.chunk_rows}{across} was never trained, and the pictures will be worse; the "
      f"painter was trained on chunks of {settings.decoder.chunk_rows} patch rows; this canvas has "
      f"{settings.canvas[0]}",
      file=sys.stderr,
    )
  return settings
