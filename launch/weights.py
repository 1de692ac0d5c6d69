"""The run that a command draws with, its weights in the type that --dtype asks for."""

from pathlib import Path

from absl import flags

DTYPE = flags.DEFINE_enum(
  "dtype",
  "float32",
  ["float32", "bfloat16"],
  "Of the weights while drawing: bfloat16 takes half the memory.",
)


def load_run(workdir: Path, on_host: bool):
  """The run (`omniimage.workdir.Run`), its parameters on the first device or, with `on_host`, in the memory of the
  host, as what is drawn over several devices takes them. UserError where there is none."""
  import dataclasses

  import jax

  from omniimage.sampling.weights import weights_as
  from omniimage.systems import load_run

  if DTYPE.value == "float32":
    return load_run(workdir, on_host) if on_host else load_run(workdir)
  run = load_run(workdir, on_host=True)  # so that no device ever holds them in float32
  params = weights_as(run.params, DTYPE.value)
  return dataclasses.replace(run, params=params if on_host else jax.device_put(params, jax.local_devices()[0]))
