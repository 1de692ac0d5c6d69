"""What a run begins with beside fresh parameters: the open language model that `prior.init` names."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from omniimage.interop.huggingface import LanguageModel
from omniimage.settings import PriorSettings, Settings
from omniimage.vocabulary import Vocabulary

BUILTIN = "builtin"


@dataclasses.dataclass(frozen=True)
class PriorStart:
  """The prior's beginning, checked against its settings when it is made: no tensor is read before it is loaded."""

  settings: PriorSettings
  vocabulary: Vocabulary

  def __post_init__(self):
    self.model.check(self.settings, self.vocabulary)

  @property
  def model(self) -> LanguageModel:
    return open_model(self.settings.init)

  def load(self, fresh: Mapping[str, Any]) -> dict[str, Any]:
    """The model's parameters in place of fresh ones, on the same devices."""
    return self.model.load(fresh, self.settings, self.vocabulary)


def open_model(init: str) -> LanguageModel:
  """The model that `prior.init` names, "hf:FOLDER"."""
  return LanguageModel(init.removeprefix("hf:"))


def complete(config: ConfigDict, begun: Callable[[], Settings | None] = lambda: None) -> ConfigDict:
  """The config with what its `prior.init` settles: the prior's sizes and, where it is not given, the text vocabulary.

  Args:
    begun: gives the settings of the run, if it has begun. From there on they say it, and the model's files may be gone.
  """
  init = config.get("prior", {}).get("init", "")
  if not (isinstance(init, str) and init.startswith("hf:")):  # where it is neither, the settings' check says so
    return config
  config = config.copy_and_resolve_references()
  run = begun()
  if run is not None and run.prior.init == init:
    prior, vocabulary = dataclasses.asdict(run.prior), run.data.vocabulary
    for ours in ("init", "text_rows", "input_images", "grid_embedding"):  # not the model's
      del prior[ours]
  else:
    model = open_model(init)
    prior, vocabulary = model.settings(), str(model.tokenizer)
  config.prior.update(prior)
  if config.data.vocabulary == BUILTIN:
    config.data.vocabulary = vocabulary
  return config
