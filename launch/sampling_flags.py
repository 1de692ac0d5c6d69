"""Flags of the commands that draw: each overrides a key of the run's `sampling`."""

import dataclasses
import sys

from absl import flags

from omniimage.settings import Settings

FLAGS = {
  "temperature": "Of the codes; 0 takes the likeliest.",
  "guidance": "Of the prior, against no text; 1 is none.",
  "token_guidance": "Of the painter, against no visual tokens; 1 is none.",
  "text_guidance": "Of the painter, against no text; 1 is none.",
}
HOLDERS = {
  name: flags.DEFINE_float(name, None, f"{help_text} Default: the run's own.") for name, help_text in FLAGS.items()
}
HOLDERS["chunk_rows"] = flags.DEFINE_integer(
  "chunk_rows", None, "Patch rows painted at a time; 0 paints the whole canvas at once. Default: as trained."
)


def overridden(settings: Settings) -> Settings:
  """The run's settings with the sampling that the flags give. SettingsError where a value cannot be; a warning where
  the painter has not learnt to paint so many rows at a time."""
  given = {name: holder.value for name, holder in HOLDERS.items() if holder.value is not None}
  settings = dataclasses.replace(settings, sampling=dataclasses.replace(settings.sampling, **given))
  if not settings.paints_as_trained:
    print(
      f"warning: --chunk_rows={settings.sampling.chunk_rows} was never trained, and the pictures will be worse; the "
      f"painter was trained on chunks of {settings.decoder.chunk_rows} patch rows",
      file=sys.stderr,
    )
  return settings
