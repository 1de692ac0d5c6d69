import contextlib
import os
import pathlib
import resource
import signal
import subprocess
import sys
import time

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from omniimage.checkpoint import CheckpointError, Checkpoints, _checksums

orbax_leaves_tasks_behind = pytest.mark.filterwarnings(
  "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine .* was never awaited:RuntimeWarning"
)
OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


@flax.struct.dataclass
class State:
  step: jax.Array
  params: dict
  ema: dict
  opt_state: dict


def a_mesh(devices: int) -> Mesh:
  grid = np.array(jax.devices()[:devices]).reshape(-1, 2)
  return Mesh(grid, ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))


def shardings(mesh: Mesh, tree):
  """Matrices over fsdp, everything else replicated."""
  return jax.tree.map(lambda leaf: NamedSharding(mesh, P(None, "fsdp") if leaf.ndim == 2 else P()), tree)


def a_state(mesh: Mesh | None = None, width: int = 8, step: int = 3) -> State:
  rng = np.random.default_rng(step)
  kernel = rng.standard_normal((4, width)).astype(np.float32)
  params = {"norm": {"scale": rng.standard_normal(5).astype(np.float32)}, "mlp": {"kernel": kernel}}
  averages = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
  state = State(np.int32(step), {"prior": params}, {"prior": averages}, {"prior": OPTIMIZER.init(params)})
  state = jax.tree.map(np.asarray, state)
  return state if mesh is None else jax.device_put(state, shardings(mesh, state))


def abstract(tree, mesh: Mesh):
  place = shardings(mesh, tree)
  return jax.tree.map(lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree, place)


def assert_same_bits(restored, saved):
  assert jax.tree.structure(restored) == jax.tree.structure(saved)
  for got, want in zip(jax.tree.leaves(restored), jax.tree.leaves(saved)):
    assert got.dtype == want.dtype and np.asarray(got).tobytes() == np.asarray(want).tobytes()


@pytest.fixture
def checkpoints(tmp_path):
  opened = Checkpoints(tmp_path / "checkpoints", keep=2)
  yield opened
  opened.close()


def saved(checkpoints: Checkpoints, step: int = 3, **kwargs) -> Checkpoints:
  checkpoints.save(step, a_state(a_mesh(8), step=step, **kwargs), {"width": 8})
  checkpoints.wait()
  return checkpoints


@pytest.mark.parametrize(("before", "after"), [(8, 2), (2, 8)])
def test_a_state_comes_back_to_the_bit_on_another_mesh_under_set_mesh(checkpoints, before, after):
  state = a_state()
  state.params["prior"]["norm"]["scale"][:3] = np.nan, -0.0, 1e-40  # bits that arithmetic would not keep
  with jax.set_mesh(a_mesh(before)):
    checkpoints.save(3, jax.device_put(state, shardings(a_mesh(before), state)), {"seed": 1})
    checkpoints.wait()
  wanted = abstract(state, a_mesh(after))
  with jax.set_mesh(a_mesh(after)):
    restored = checkpoints.restore(3, wanted)
  assert_same_bits(restored, state)
  for got, want in zip(jax.tree.leaves(restored), jax.tree.leaves(wanted)):
    assert got.sharding == want.sharding
    assert got.sharding.mesh.axis_types == (AxisType.Auto, AxisType.Auto)


def test_a_state_may_be_donated_as_soon_as_save_returns(checkpoints):
  step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
  state = {"big": jax.device_put(jnp.zeros((512, 512)), NamedSharding(a_mesh(8), P("fsdp")))}
  wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
  for count in range(2):
    checkpoints.save(count, state, {})
    state = step(state)
    checkpoints.wait()
    assert (np.asarray(checkpoints.restore(count, wanted)["big"]) == count).all()


def test_params_are_restored_without_the_optimizer(checkpoints):
  state = a_state()
  wanted = abstract({"params": state.params, "ema": state.ema}, a_mesh(2))
  restored = saved(checkpoints).restore_params(3, wanted)
  assert_same_bits(restored, {"params": state.params, "ema": state.ema})


def test_a_leaf_without_a_sharding_goes_to_the_first_device(checkpoints):
  wanted = {"params": jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), a_state().params)}
  restored = saved(checkpoints).restore_params(3, wanted)
  assert {leaf.device for leaf in jax.tree.leaves(restored)} == {jax.devices()[0]}


def test_metadata_and_shapes_are_read_without_the_arrays(checkpoints):
  config = {"stages": {"b": 1, "a": [1.5, None]}, "name": "scènes"}
  checkpoints.save(0, a_state(a_mesh(2)), config)
  checkpoints.wait()
  for file in data_files(checkpoints):
    file.unlink()
  assert checkpoints.metadata(0) == config and list(checkpoints.metadata(0)["stages"]) == ["b", "a"]
  shapes = checkpoints.shapes(0)
  assert shapes["ema/prior/mlp/kernel"] == jax.ShapeDtypeStruct((4, 8), jnp.bfloat16)
  assert shapes["step"] == jax.ShapeDtypeStruct((), jnp.int32)


def test_only_the_last_checkpoints_are_kept(checkpoints):
  for step in (2, 10, 9, 30):
    saved(checkpoints, step)
  assert checkpoints.steps() == [10, 30] and checkpoints.latest() == 30
  assert sorted(os.listdir(checkpoints._directory)) == ["10", "30"]


def test_a_deletion_cut_short_leaves_no_half_of_a_checkpoint(checkpoints, monkeypatch):
  def killed(path):
    raise KeyboardInterrupt

  saved(saved(checkpoints, 1), 2)
  monkeypatch.setattr(type(checkpoints._directory), "rmtree", killed)
  with pytest.raises(KeyboardInterrupt):
    saved(checkpoints, 3)
  assert checkpoints.steps() == [2, 3]


def test_reading_changes_nothing_and_needs_no_directory(tmp_path):
  reader = Checkpoints(tmp_path / "none")
  assert reader.steps() == [] and reader.latest() is None and not (tmp_path / "none").exists()
  with pytest.raises(CheckpointError, match="has no checkpoint of step 5; it has "):
    reader.metadata(5)
  with pytest.raises(CheckpointError, match="opened to be read"):
    reader.save(5, a_state(), {})


def test_a_step_is_saved_once(checkpoints):
  with pytest.raises(CheckpointError, match="already holds step 3"):
    saved(saved(checkpoints))


def test_another_model_is_told_apart_before_any_array_is_read(checkpoints):
  saved(checkpoints)
  for file in data_files(checkpoints):
    file.unlink()
  other = a_state(width=16)
  other.params["prior"]["head"] = other.params["prior"].pop("norm")
  with pytest.raises(CheckpointError) as error:
    checkpoints.restore(3, abstract(other, a_mesh(2)))
  message = str(error.value)
  assert "\n" not in message
  assert "ema/prior/mlp/kernel is bfloat16[4, 8] there and bfloat16[4, 16] here" in message and "1 more" in message
  assert "it lacks params/prior/head/scale" in message and "only there: params/prior/norm/scale" in message


def test_another_dtype_is_told_apart_instead_of_cast(checkpoints):
  wanted = {"params": {"prior": {"mlp": {"kernel": jax.ShapeDtypeStruct((4, 8), jnp.bfloat16)}}}}
  with pytest.raises(CheckpointError, match=r"kernel is float32\[4, 8\] there and bfloat16\[4, 8\] here"):
    saved(checkpoints).restore_params(3, wanted)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.bool_])
def test_a_checksum_sees_every_bit_and_no_mesh(dtype):
  values = np.random.default_rng(0).integers(0, 2, (4, 6, 2)).astype(dtype)
  sums = {name: jax.device_put(values, where) for name, where in several_shardings().items()}
  (expected,) = set(_checksums(sums).values())
  bits = values.view(np.uint8).reshape(-1)
  for position in range(0, bits.size, 7):
    bits[position] ^= 1
    assert _checksums({"flipped": jnp.asarray(values)})["flipped"] != expected
    bits[position] ^= 1


def several_shardings() -> dict:
  two, eight = a_mesh(2), a_mesh(8)
  specs = {"rows": (eight, P("data")), "inner": (eight, P(None, "fsdp")), "both": (eight, P("data", None, "fsdp"))}
  placed = {name: NamedSharding(mesh, spec) for name, (mesh, spec) in specs.items()}
  return {**placed, "replicated": NamedSharding(two, P()), "one": jax.devices()[3]}


def test_a_bit_flipped_among_the_weights_is_noticed_and_named(checkpoints):
  """Orbax itself returns such weights without a word."""
  state = {"noise": jax.random.normal(jax.random.key(0), (256, 256)), "ones": jnp.ones(3)}
  checkpoints.save(3, state, {})
  checkpoints.wait()
  file = max(data_files(checkpoints), key=lambda file: file.stat().st_size)
  for share in (0.3, 0.5, 0.7):
    position = int(file.stat().st_size * share)
    with flipped_bit(file, position), pytest.raises(CheckpointError, match="noise differs from what was saved"):
      checkpoints.restore(3, state)
  assert_same_bits(checkpoints.restore(3, state), state)


@orbax_leaves_tasks_behind
def test_a_flipped_bit_in_any_file_is_harmless_or_an_error_of_one_line(checkpoints):
  saved(saved(checkpoints, 2))
  state, rng, noticed = a_state(), np.random.default_rng(0), 0
  for file in step_directory(checkpoints, 3).rglob("*"):
    if file.is_file() and file.stat().st_size:
      with flipped_bit(file, rng.integers(file.stat().st_size)):
        try:
          assert checkpoints.metadata(3) == {"width": 8}
          assert_same_bits(checkpoints.restore(3, abstract(state, a_mesh(2))), state)
        except CheckpointError as error:
          noticed += 1
          assert "\n" not in str(error) and f"{step_directory(checkpoints, 3)}" in str(error)
  assert noticed > 0


def test_an_unwritable_directory_is_named_before_anything_is_saved(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(CheckpointError, match=f"cannot write checkpoints to {tmp_path}/file/run; ") as error:
    Checkpoints(tmp_path / "file" / "run", keep=1)
  assert "\n" not in str(error.value)


def test_an_existing_directory_without_write_permission_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(os, "access", lambda path, mode: False)  # the suite may run as root, who may write anywhere
  with pytest.raises(CheckpointError, match=f"cannot write checkpoints to {tmp_path}; .*: it is not writable"):
    Checkpoints(tmp_path, keep=1)


@orbax_leaves_tasks_behind
def test_a_save_that_fails_in_the_background_is_raised_by_wait(checkpoints):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))  # as a full disk would, in the middle of a file
  try:
    checkpoints.save(3, {"noise": jax.random.normal(jax.random.key(0), (256, 256))}, {})
    with pytest.raises(CheckpointError, match=f"could not be written to {checkpoints._directory}: ") as error:
      checkpoints.wait()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert "\n" not in str(error.value) and checkpoints.latest() is None


def test_a_save_cut_short_is_not_a_checkpoint_and_the_next_writer_clears_it(tmp_path):
  (tmp_path / "7.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
  (tmp_path / "deleted.5" / "state").mkdir(parents=True)
  assert Checkpoints(tmp_path).latest() is None
  assert len(os.listdir(tmp_path)) == 2, "a reader beside a running trainer must not delete what it is writing"
  saved(Checkpoints(tmp_path, keep=1), 9).close()
  assert os.listdir(tmp_path) == ["9"]


SAVER = """
import sys
import jax.numpy as jnp
from omniimage.checkpoint import Checkpoints
checkpoints = Checkpoints(sys.argv[1], keep=2)
for step in range((checkpoints.latest() or 0) + 1, 10_000):
  checkpoints.save(step, {"step": jnp.int32(step), "weights": jnp.full((256, 1024), step, jnp.float32)}, {"step": step})
  print(step, flush=True)
"""


def test_a_killed_process_leaves_only_whole_checkpoints(tmp_path):
  environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
  wanted = {"step": jax.ShapeDtypeStruct((), jnp.int32), "weights": jax.ShapeDtypeStruct((256, 1024), jnp.float32)}
  last = 0
  for delay in (0.01, 0.06):
    child = subprocess.Popen(
      [sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, env=environment, text=True
    )
    for line in child.stdout:
      if int(line) >= last + 6:
        break
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    reader = Checkpoints(tmp_path)
    assert reader.latest() >= last + 5, "all but the save under way were complete"
    for step in reader.steps():
      restored = reader.restore(step, wanted)
      assert restored["step"] == step == reader.metadata(step)["step"] and (restored["weights"] == step).all()
    last = reader.latest()


def step_directory(checkpoints: Checkpoints, step: int) -> pathlib.Path:
  return pathlib.Path(checkpoints._directory) / str(step)


@contextlib.contextmanager
def flipped_bit(file: pathlib.Path, position: int):
  intact = file.read_bytes()
  damaged = bytearray(intact)
  damaged[position] ^= 8
  file.write_bytes(damaged)
  yield
  file.write_bytes(intact)


def data_files(checkpoints: Checkpoints) -> list[pathlib.Path]:
  """The files that hold the values of the arrays of the last checkpoint."""
  return sorted(step_directory(checkpoints, checkpoints.latest()).glob("state/**/d/*"))
