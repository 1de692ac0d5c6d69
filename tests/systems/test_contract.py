"""Every system trains every stage of every committed config: its step is traced, nothing is compiled."""

import dataclasses
import importlib
import pkgutil

import jax
import pytest

import configs
from omniimage.data.sources.source import SourceSettings
from omniimage.distributed.mesh import make_mesh
from omniimage.settings import MeshSettings, Settings, from_config
from omniimage.systems import SYSTEMS, open_system
from omniimage.training.sharded import abstract_batch, abstract_state
from omniimage.training.step import make_train_step
from tests import small

ROWS = 2


def committed() -> dict[str, Settings]:
  """The settings of every variant of every file in configs/, by name."""
  modules = [importlib.import_module(f"configs.{found.name}") for found in pkgutil.iter_modules(configs.__path__)]
  files = [module for module in modules if hasattr(module, "get_config")]
  return {f"{file.__name__}:{name}": from_config(file.get_config(name)) for file in files for name in file.VARIANTS}


def different(configs: dict[str, Settings]) -> dict[str, Settings]:
  """One of those that differ in nothing but where their records come from: that is no part of a step."""
  found = []
  for name, settings in configs.items():
    settings = dataclasses.replace(settings, data=dataclasses.replace(settings.data, source=SourceSettings("any")))
    if all(settings != other for _, other in found):
      found.append((name, settings))
  return dict(found)


COMMITTED = different(committed())
STAGES = [(config, stage) for config, settings in COMMITTED.items() for stage in dict.fromkeys(settings.schedule)]


def test_every_system_has_a_committed_config():
  assert {settings.system for settings in COMMITTED.values()} == set(SYSTEMS)


@pytest.mark.parametrize(("config", "stage"), STAGES)
def test_a_step_of_every_stage_of_every_config_is_traced(config, stage):
  settings, mesh = COMMITTED[config], make_mesh(MeshSettings(-1, 1, 1, 1))
  system, row = open_system(settings, small.text_tokenizer().size), settings.stages[stage]
  state, batch = abstract_state(system, stage, mesh), abstract_batch(system, stage, ROWS * row.accumulate, mesh)
  after, metrics = jax.eval_shape(make_train_step(system, row, 0), state, batch)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
  terms = {name for name in system.terms if row.weight(name)}
  assert {"loss", *terms, *(f"grad_norm/{part}" for part in row.moves)} <= set(metrics)
  assert system.step_flops(row, settings.buckets[0]) > 0
