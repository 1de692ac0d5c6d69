"""Settings: the frozen dataclasses a config becomes.

A config file is an `ml_collections.ConfigDict`; `from_config` turns it, once, into the dataclasses of this package, a
file a group. An unknown key, a wrong type, a number out of its range or an impossible combination raises
`SettingsError` with one line that names the key and what to change, before anything is compiled.
"""

from omniimage.errors import SettingsError
from omniimage.settings.conversion import from_config, from_stored
from omniimage.settings.data import DataSettings
from omniimage.settings.kinds import MOST_STEPS, divides, require, require_key
from omniimage.settings.parts import (
  CODEBOOKS,
  INPUT_IMAGES,
  AutoencoderSettings,
  CodebookSettings,
  DecoderSettings,
  EmbedderSettings,
  EncoderSettings,
  PriorSettings,
  TokenizerSettings,
)
from omniimage.settings.run import MeshSettings, RunSettings
from omniimage.settings.sampling import AS_TRAINED, SOLVERS, SamplingSettings
from omniimage.settings.training import FaultSettings, OptimizerSettings, StageSettings
from omniimage.settings.whole import REMAT, Settings

__all__ = [
  "AS_TRAINED", "CODEBOOKS", "INPUT_IMAGES", "MOST_STEPS", "REMAT", "SOLVERS", "AutoencoderSettings",
  "CodebookSettings", "DataSettings", "DecoderSettings", "EmbedderSettings", "EncoderSettings", "FaultSettings",
  "MeshSettings", "OptimizerSettings", "PriorSettings", "RunSettings", "SamplingSettings", "Settings", "SettingsError",
  "StageSettings", "TokenizerSettings", "divides", "from_config", "from_stored", "require", "require_key",
]  # fmt: skip
