"""The systems there are, one module each."""

import os

from jax.sharding import SingleDeviceSharding

from omniimage import workdir
from omniimage.data.text import TextTokenizer
from omniimage.distributed.spread import Spread, host
from omniimage.errors import UserError
from omniimage.sampling.drawing import Draws
from omniimage.settings import Settings, require
from omniimage.systems.dalle1 import Dalle1System
from omniimage.systems.omni import OmniSystem
from omniimage.systems.pixel_diffusion import PixelDiffusionSystem
from omniimage.systems.stable_diffusion import StableDiffusionSystem
from omniimage.systems.system import Params, System
from omniimage.systems.unclip import UnClipSystem

SYSTEMS: dict[str, type[System]] = {
  "omni": OmniSystem,
  "dalle1": Dalle1System,
  "stable_diffusion": StableDiffusionSystem,
  "pixel_diffusion": PixelDiffusionSystem,
  "unclip": UnClipSystem,
}


def system_named(name: str) -> type[System]:
  """SettingsError if there is none of that name."""
  require(name in SYSTEMS, f"config.system={name!r} is not a system; there are {', '.join(SYSTEMS)}")
  return SYSTEMS[name]


def open_system(settings: Settings, text_size: int, **execution) -> System:
  """The system that `config.system` names, with a text vocabulary of a size.

  `execution` is how a mesh runs it: `kernels` and `gather_params`. SettingsError, before anything is compiled, if
  there is none of that name or a stage of the schedule cannot be trained.
  """
  system = system_named(settings.system)(settings, text_size, **execution)
  for stage in dict.fromkeys(settings.schedule):
    system.check(stage)
  return system


def load_run(path: str | os.PathLike, on_host: bool = False) -> workdir.Run:
  """The last checkpoint of a run of any system. UserError where there is none.

  With `on_host` its parameters are in the memory of the host, from where `open_generator` brings them to the devices of
  a Spread: so no device holds more of them than it draws with.
  """
  place = SingleDeviceSharding(host()) if on_host else None
  init_of = lambda settings, text_size: system_named(settings.system)(settings, text_size).init  # noqa: E731
  return workdir.load_run(path, init_of, place)


def open_generator(
  system: System, params: Params, text_tokenizer: TextTokenizer, spread: Spread | None = None
) -> Draws:
  """What draws with a run's parameters, as its system does, over the devices of `spread` or on the first. UserError if
  that cannot draw."""
  generator = system.generator(params, text_tokenizer, spread)
  if generator is None:
    raise UserError(
      f"a run of config.system={system.settings.system!r} cannot draw, and only what draws can be looked at"
    )
  return generator
