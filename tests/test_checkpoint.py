import contextlib
import errno
import hashlib
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
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

from omniimage import checkpoint, manifests
from omniimage.checkpoint import CheckpointError, Checkpoints, NoneWhole
from omniimage.errors import UserError

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


@pytest.fixture
def warnings(monkeypatch):
  told = []
  monkeypatch.setattr(checkpoint.logging, "warning", lambda form, *args: told.append(form % args))
  return told


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


@pytest.mark.parametrize("reserved", [False, True])
def test_a_state_may_be_donated_as_soon_as_save_returns(checkpoints, reserved):
  step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
  state = {"big": jax.device_put(jnp.zeros((512, 512)), NamedSharding(a_mesh(8), P("fsdp")))}
  wanted = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
  if reserved:
    checkpoints.reserve(state)
  for count in range(2):
    checkpoints.save(count, state, {})
    state = step(state)
  checkpoints.wait()
  for count in range(2):
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


def test_multiples_of_keep_every_are_kept_for_good(tmp_path):
  checkpoints = Checkpoints(tmp_path, keep=2, keep_every=10)
  for step in (5, 10, 15, 20, 25, 26):
    saved(checkpoints, step)
  assert checkpoints.steps() == [10, 20, 25, 26]


def test_a_deletion_cut_short_leaves_no_half_of_a_checkpoint(checkpoints, monkeypatch):
  def killed(path):
    raise KeyboardInterrupt

  saved(saved(checkpoints, 1), 2)
  monkeypatch.setattr(type(checkpoints._directory), "rmtree", killed)
  with pytest.raises(KeyboardInterrupt):
    saved(checkpoints, 3)
  assert checkpoints.steps() == [2, 3]


def test_a_file_that_a_reader_holds_on_a_network_disk_keeps_no_run_from_saving(checkpoints, monkeypatch, warnings):
  def held(path):
    raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

  saved(saved(checkpoints, 1), 2)
  with monkeypatch.context() as patched:
    patched.setattr(type(checkpoints._directory), "rmtree", held)
    saved(checkpoints, 3)
  assert checkpoints.steps() == [2, 3]
  assert warnings == [f"{checkpoints._directory}/deleted.1 cannot be deleted yet: Directory not empty"]
  assert Checkpoints(checkpoints._directory, keep=2).steps() == [2, 3]
  assert sorted(os.listdir(checkpoints._directory)) == ["2", "3"]


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


def test_a_bit_flipped_in_any_file_is_noticed_and_named(checkpoints):
  """Orbax itself returns flipped weights without a word."""
  saved(checkpoints)
  rng = np.random.default_rng(0)
  for file in files_of(checkpoints, 3):
    if file.stat().st_size:
      with flipped_bit(file, rng.integers(file.stat().st_size)):
        assert checkpoints.damage(3) == f"{name_of(file, 3)} differs from what was saved"
  assert checkpoints.damage(3) == ""


def test_bytes_all_over_the_small_files_count(checkpoints):
  saved(checkpoints)
  for file in step_directory(checkpoints, 3).glob("*.json"):
    for position in range(0, file.stat().st_size, 7):
      with flipped_bit(file, position):
        assert checkpoints.damage(3) == f"{file.name} differs from what was saved"


def test_what_is_missing_or_truncated_is_named(checkpoints):
  saved(checkpoints)
  for file in files_of(checkpoints, 3):
    name, intact = name_of(file, 3), file.read_bytes()
    if file.name != "complete.json":
      if intact:
        file.write_bytes(intact[:-1])
        assert checkpoints.damage(3) == f"{name} is truncated: {len(intact) - 1} of {len(intact)} bytes"
      file.unlink()
      assert checkpoints.damage(3) == f"{name} is missing"
    file.write_bytes(intact)


def test_no_file_outside_a_checkpoint_is_read_in_its_place(checkpoints, tmp_path):
  saved(checkpoints)
  place = step_directory(checkpoints, 3)
  file = data_files(checkpoints)[0]
  shutil.move(file, tmp_path / "elsewhere")
  file.symlink_to(tmp_path / "elsewhere")
  assert checkpoints.damage(3) == f"{name_of(file, 3)} is a symbolic link"
  file.unlink()
  shutil.move(tmp_path / "elsewhere", file)
  shutil.move(place / "state", tmp_path / "state")
  (place / "state").symlink_to(tmp_path / "state")
  assert "state/_METADATA is missing" in checkpoints.damage(3)


@pytest.mark.parametrize("outside", ["../{}", "{}"])
def test_a_manifest_cannot_name_a_file_outside_its_checkpoint(checkpoints, tmp_path, outside):
  """Even one that a forger has hashed anew throughout."""
  saved(checkpoints)
  place = step_directory(checkpoints, 3)
  (tmp_path / "checkpoints" / "secret").write_text("secret")
  name = outside.format("secret" if ".." in outside else tmp_path / "checkpoints" / "secret")
  manifest = place / "manifest.0-of-1.json"
  entries = json.loads(manifest.read_text())
  entries[name] = manifests.entry_of(place.parent / "secret")
  manifest.write_bytes(manifests.to_json(entries))
  small = {file: manifests.entry_of(place / file) for file in ("about.json", manifest.name)}
  (place / "complete.json").write_bytes(manifests.sealed(small, None))
  assert checkpoints.damage(3) == f"{name} is missing"


def test_a_damaged_checkpoint_is_not_restored_and_the_error_names_the_others(checkpoints):
  saved(saved(checkpoints, 2))
  state = a_state()
  for file in (step_directory(checkpoints, 3) / "about.json", data_files(checkpoints)[0]):
    with flipped_bit(file, 0), pytest.raises(CheckpointError) as error:
      checkpoints.restore(3, abstract(state, a_mesh(2)))
    place, name = step_directory(checkpoints, 3), name_of(file, 3)
    others = "the other steps there are [2]"
    assert str(error.value) == f"{place} cannot be restored ({others}): {name} differs from what was saved"
  assert_same_bits(checkpoints.restore(3, abstract(state, a_mesh(2))), state)


def test_a_checkpoint_is_verified_once(checkpoints, monkeypatch):
  state, reads = a_state(), []
  saved(checkpoints)
  hashing = manifests.entry_of
  monkeypatch.setattr(manifests, "entry_of", lambda path: reads.append(path.name) or hashing(path))
  assert checkpoints.newest_good() == 3 and len(reads) > 5
  reads.clear()
  checkpoints.restore(3, abstract(state, a_mesh(2)))
  assert set(reads) == {"about.json"}


def test_the_newest_good_checkpoint_is_taken_and_damaged_ones_are_set_aside(tmp_path, warnings):
  checkpoints = Checkpoints(tmp_path, keep=5)
  for step in (1, 2, 3, 4):
    saved(checkpoints, step)
  flip(step_directory(checkpoints, 3) / "state" / "_METADATA")
  flip(step_directory(checkpoints, 4) / "complete.json")
  reader = Checkpoints(tmp_path)
  assert reader.newest_good() == 2 and reader.steps() == [1, 2, 3, 4], "a reader changes nothing"
  warnings.clear()
  assert checkpoints.newest_good(most=1) == 1 and not warnings
  assert checkpoints.newest_good() == 2 == checkpoints.latest()
  assert warnings == [
    f"{tmp_path}/4 is damaged: complete.json differs from what was saved; falls back to step 2",
    f"{tmp_path}/3 is damaged: state/_METADATA differs from what was saved; falls back to step 2",
  ]
  for times in range(2):  # an older damaged checkpoint of that step gives way
    saved(checkpoints, 3)
    flip(step_directory(checkpoints, 3) / "about.json")
    assert checkpoints.newest_good() == 2
    assert sorted(os.listdir(tmp_path)) == ["1", "2", "damaged.3", "damaged.4"], times


def test_where_no_checkpoint_is_whole_each_is_named_and_nothing_is_changed(checkpoints):
  assert checkpoints.newest_good() is None
  saved(saved(checkpoints, 2), 3)
  flip(step_directory(checkpoints, 3) / "about.json")
  (step_directory(checkpoints, 2) / "complete.json").unlink()
  before = sorted(pathlib.Path(checkpoints._directory).rglob("*"))
  with pytest.raises(NoneWhole) as error:
    checkpoints.newest_good()
  faults = "step 3: about.json differs from what was saved; step 2: complete.json is missing"
  assert str(error.value) == f"no checkpoint in {checkpoints._directory} is whole, {faults}"
  assert sorted(pathlib.Path(checkpoints._directory).rglob("*")) == before
  assert checkpoints.newest_good(most=1) is None


def test_a_step_is_saved_again_after_what_came_later_is_dropped(checkpoints):
  saved(saved(checkpoints, 5), 7)
  assert checkpoints.damage(7) == ""
  checkpoints.drop_after(5)
  assert os.listdir(checkpoints._directory) == ["5"]
  saved(checkpoints, 7)
  flip(data_files(checkpoints)[0])
  with pytest.raises(CheckpointError, match="differs"):  # what was known of the earlier step 7 does not count
    checkpoints.restore(7, abstract(a_state(step=7), a_mesh(2)))
  with pytest.raises(CheckpointError, match="opened to be read"):
    Checkpoints(checkpoints._directory).drop_after(5)


FOREIGN = (
  ".DS_Store",
  "Thumbs.db",
  "desktop.ini",
  "._about.json",
  ".nfs0001",
  "about.json~",
  "notes.txt",
  "process_1",
  "process_0~",
)


def litter(folder: pathlib.Path):
  """What file managers, editors and people leave behind, in a folder and all folders in it."""
  for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
    for name in FOREIGN:
      (place / name).write_text("foreign")
    (place / "__MACOSX").mkdir()
    (place / "__MACOSX" / "._manifest").touch()


def test_foreign_files_are_ignored_with_one_line(checkpoints, warnings):
  saved(saved(checkpoints, 2), 3)
  litter(pathlib.Path(checkpoints._directory))
  for name in ("7", "saving.old", "deleted.txt"):  # files
    (checkpoints._directory / name).touch()
  reopened = Checkpoints(checkpoints._directory, keep=2)
  assert reopened.newest_good() == 3
  assert len(warnings) == 1 and warnings[0].startswith(f"{checkpoints._directory}/3: ignores ")
  assert_same_bits(reopened.restore(3, abstract(a_state(), a_mesh(2))), a_state())
  saved(reopened, 4)
  names = {"3", "4", "7", "saving.old", "deleted.txt", "__MACOSX", *FOREIGN}
  assert set(os.listdir(checkpoints._directory)) == names, "those beside the checkpoints stay"


def test_foreign_files_that_come_and_go_while_a_checkpoint_is_sealed_do_no_harm(checkpoints, monkeypatch):
  hashing = manifests.entry_of

  def disturbed(path):
    place = step_directory(checkpoints, 3).with_name("saving.3")
    (place / ".nfs0001").touch()
    (place / "state" / "notes.txt").touch()
    return hashing(path)

  with monkeypatch.context() as patched:
    patched.setattr(manifests, "entry_of", disturbed)
    saved(checkpoints)
  (step_directory(checkpoints, 3) / ".nfs0001").unlink()
  assert checkpoints.damage(3) == ""


def test_a_foreign_file_that_an_older_version_has_sealed_may_go(checkpoints, monkeypatch):
  with monkeypatch.context() as patched:
    patched.setattr(manifests, "_is_foreign", lambda name: False)
    patched.setattr(checkpoint, "array_index", LittersWhenAsked())
    saved(checkpoints)
  (step_directory(checkpoints, 3) / "state" / ".DS_Store").unlink()
  assert checkpoints.damage(3) == ""


class LittersWhenAsked:
  def unreadable(self, place, arrays) -> str:
    (place / ".DS_Store").touch()
    return ""


def test_a_checkpoint_copied_over_a_newer_one_is_passed_by_and_named(checkpoints, warnings):
  saved(saved(checkpoints, 2), 3)
  shutil.rmtree(step_directory(checkpoints, 3))
  for name in ("3", "9"):
    shutil.copytree(step_directory(checkpoints, 2), step_directory(checkpoints, 2).with_name(name))
  copied = "it is the checkpoint of step 2, copied over this name"
  with pytest.raises(CheckpointError, match=copied):
    checkpoints.restore(3, abstract(a_state(), a_mesh(2)))
  with pytest.raises(CheckpointError, match=copied):
    checkpoints.metadata(3)
  assert checkpoints.newest_good() == 2
  assert warnings == [f"{checkpoints._directory}/{n} is damaged: {copied}; falls back to step 2" for n in (9, 3)]
  saved(checkpoints)
  assert checkpoints.newest_good() == 3


def test_a_seal_of_an_older_version_which_does_not_know_its_step_is_read(checkpoints):
  saved(checkpoints)
  place = step_directory(checkpoints, 3)
  small = {name: manifests.entry_of(place / name) for name in ("about.json", "manifest.0-of-1.json")}
  text = json.dumps(small, separators=(",", ":"))
  sha = hashlib.sha256(text.encode()).hexdigest()
  (place / "complete.json").write_text(f'{{"files":{text},"sha256":"{sha}"}}')
  assert checkpoints.newest_good() == 3
  assert_same_bits(checkpoints.restore(3, abstract(a_state(), a_mesh(2))), a_state())


def test_who_reads_beside_a_run_takes_the_next_newest_of_what_it_deletes(tmp_path):
  writer, tried = saved(saved(Checkpoints(tmp_path, keep=1), 1), 2), []
  reader = Checkpoints(tmp_path)

  def read(step: int) -> int:
    tried.append(step)
    if len(tried) < 3:
      saved(writer, step + 1)  # which deletes the one that is being read
    return int(reader.restore(step, abstract(a_state(step=step), a_mesh(2))).step)

  assert reader.read_newest(read) == 4 and tried == [2, 3, 4]
  flip(data_files(writer)[0])
  with pytest.raises(NoneWhole, match=r"step 4: .* differs"):
    Checkpoints(tmp_path).read_newest(read)
  assert Checkpoints(tmp_path / "none").read_newest(read) is None


def test_what_vanishes_while_it_is_verified_is_not_called_damaged(tmp_path, monkeypatch, warnings):
  writer = saved(saved(Checkpoints(tmp_path, keep=2), 1), 2)
  find = manifests._files

  def late(place, *folder):
    if place.name == "2" and not folder:
      writer.drop_after(1)
    return find(place, *folder)

  monkeypatch.setattr(manifests, "_files", late)
  assert Checkpoints(tmp_path).newest_good() == 1 and not warnings


def test_nothing_is_sealed_whose_arrays_cannot_be_found_again(checkpoints, monkeypatch):
  monkeypatch.setattr(checkpoint, "check_path", lambda *_, **__: None)
  bracketed = Checkpoints(checkpoints._directory / "run [2]", keep=1)
  with pytest.raises(CheckpointError, match=r"the index of what was written lacks ema/prior/mlp/kernel, .* and 7 more"):
    saved(bracketed)
  assert os.listdir(bracketed._directory) == []


@pytest.mark.parametrize("name", ["run [2]", "a*b", "a?b", "a\\b", "gs:", os.fsdecode(b"\xff")])
def test_a_name_that_orbax_would_misread_is_refused_before_anything_is_saved(tmp_path, name):
  with pytest.raises(UserError, match=r"no checkpoint can be written to a folder whose path holds .*; rename it"):
    Checkpoints(tmp_path / name / "checkpoints", keep=1)


def test_other_names_work(tmp_path):
  for name in ("{} %20 #é\n$~|;&'\"<>(2).", "]{a,b}", "😀 "):
    checkpoints = Checkpoints(tmp_path / name, keep=1)
    checkpoints.save(3, {"step": jnp.int32(3)}, {})
    checkpoints.close()
    reader = Checkpoints(tmp_path / name)
    assert reader.restore(3, reader.shapes(3))["step"] == 3


def test_an_unwritable_directory_is_named_before_anything_is_saved(tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(CheckpointError, match=f"cannot write checkpoints to {tmp_path}/file/run; ") as error:
    Checkpoints(tmp_path / "file" / "run", keep=1)
  assert "\n" not in str(error.value)


def test_an_existing_directory_without_write_permission_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(os, "access", lambda path, mode: False)  # the suite may run as root, who may write anywhere
  with pytest.raises(CheckpointError, match=f"cannot write checkpoints to {tmp_path}; .*: it is not writable"):
    Checkpoints(tmp_path, keep=1)


@contextlib.contextmanager
def full_disk():
  """Any file of more than 64 KiB ends in an error, in the middle."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@orbax_leaves_tasks_behind
@pytest.mark.parametrize("report", ["wait", "check"])
def test_a_save_that_fails_in_the_background_is_reported_and_leaves_nothing(checkpoints, report):
  saved(checkpoints, 2)
  big = {"noise": jax.random.normal(jax.random.key(0), (256, 256))}
  with full_disk(), pytest.raises(CheckpointError, match=r"of step 3 could not be written to .*: ") as error:
    checkpoints.save(3, big, {})
    for _ in range(1000):
      getattr(checkpoints, report)()
      time.sleep(0.01)
  assert "\n" not in str(error.value)
  assert os.listdir(checkpoints._directory) == ["2"] and checkpoints.newest_good() == 2
  checkpoints.save(3, big, {})
  checkpoints.wait()
  assert checkpoints.newest_good() == 3


def test_a_save_whose_files_cannot_be_hashed_is_reported_and_leaves_nothing(checkpoints, monkeypatch):
  def unreadable(path):
    raise OSError(5, "Input/output error")

  with monkeypatch.context() as broken, pytest.raises(CheckpointError, match=r"step 3 could .* Input/output error"):
    broken.setattr(manifests, "entry_of", unreadable)
    saved(checkpoints, 3)
  assert os.listdir(checkpoints._directory) == []


def test_metadata_are_json(checkpoints):
  with pytest.raises(CheckpointError, match=r"3 cannot be written: .*not JSON serializable"):
    checkpoints.save(3, a_state(a_mesh(2)), {"tokenizer": object()})
  assert os.listdir(checkpoints._directory) == []


def test_a_save_cut_short_is_not_a_checkpoint_and_the_next_writer_clears_it(tmp_path):
  for left in ("saving.7.orbax-checkpoint-tmp", "saving.8", "deleted.5", "6.orbax-checkpoint-tmp"):
    (tmp_path / left / "state").mkdir(parents=True)
  assert Checkpoints(tmp_path).latest() is None
  assert len(os.listdir(tmp_path)) == 4, "a reader beside a running trainer must not delete what it is writing"
  saved(Checkpoints(tmp_path, keep=1), 9).close()
  assert os.listdir(tmp_path) == ["9"]


def test_a_directory_without_its_marker_is_no_checkpoint_and_does_not_stand_in_the_way(tmp_path, warnings):
  saved(saved(Checkpoints(tmp_path, keep=2), 3), 4).close()
  (tmp_path / "4" / "complete.json").unlink()
  reader = Checkpoints(tmp_path)
  assert reader.steps() == [3] == [reader.newest_good()] and (tmp_path / "4").exists()
  assert warnings == [f"{tmp_path}/4 is damaged: complete.json is missing; falls back to step 3"]
  warnings.clear()
  saved(Checkpoints(tmp_path, keep=2), 4).close()
  assert warnings == [f"{tmp_path}/4 has no complete.json and is set aside"]
  assert Checkpoints(tmp_path).steps() == [3, 4] and Checkpoints(tmp_path).damage(4) == ""


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


PEER = """
import sys
import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec as P

directory, port, index = sys.argv[1], sys.argv[2], int(sys.argv[3])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=index)

from omniimage.checkpoint import Checkpoints

mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "fsdp"), axis_types=(AxisType.Auto, AxisType.Auto))
placed = {"rows": NamedSharding(mesh, P("data")), "grid": NamedSharding(mesh, P("data", "fsdp")),
          "replicated": NamedSharding(mesh, P())}

def bits(array):
  return [np.asarray(shard.data).tobytes() for shard in array.addressable_shards]

with jax.set_mesh(mesh):
  checkpoints = Checkpoints(directory, keep=3)
  assert checkpoints.steps() == [1, 2]
  damage = checkpoints.damage(2)
  assert checkpoints.newest_good() == 1
  wanted = {name: jax.ShapeDtypeStruct((8, 64), np.float32, sharding=placed[name]) for name in placed}
  state = checkpoints.restore(1, wanted)
  expected = np.random.default_rng(1).standard_normal((8, 64), np.float32)
  for name, array in state.items():
    assert array.sharding == placed[name]
    assert bits(array) == [expected[shard.index].tobytes() for shard in array.addressable_shards]
  add = jax.jit(lambda state, n: jax.tree.map(lambda x: x + n, state), donate_argnums=0)
  for step in (2, 3):
    state = add(state, 1)
    checkpoints.save(step, state, {"step": step})
  state = add(state, 1)
  checkpoints.close()
  assert checkpoints.steps() == [1, 2, 3] and checkpoints.newest_good() == 3
  print(damage)
"""


def test_two_processes_and_one_restore_what_the_other_saved_to_the_bit(tmp_path):
  values = np.random.default_rng(1).standard_normal((8, 64), np.float32)
  state = {name: jnp.asarray(values) for name in ("rows", "grid", "replicated")}
  alone = Checkpoints(tmp_path, keep=2)
  for step in (1, 2):
    alone.save(step, state, {})
  alone.close()
  flip(data_files(alone)[0])
  (step_directory(alone, 2) / "state" / "_METADATA").unlink()
  with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
  environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
  environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
  command = [sys.executable, "-c", PEER, str(tmp_path), str(port)]
  peers = [
    subprocess.Popen([*command, str(i)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for i in range(2)
  ]
  told = [peer.communicate(timeout=60) for peer in peers]
  assert [peer.returncode for peer in peers] == [0, 0], "\n".join(errors for _, errors in told)
  first, second = (out.splitlines()[-1] for out, _ in told)
  assert first == second and "_METADATA is missing" in first and "differs from what was saved" in first
  assert sorted(os.listdir(tmp_path)) == ["1", "2", "3", "damaged.2"]
  assert len(list((tmp_path / "3").glob("manifest.*-of-2.json"))) == 2
  reader = Checkpoints(tmp_path)
  for step in (2, 3):
    assert reader.metadata(step) == {"step": step} and reader.damage(step) == ""
    values = values + np.float32(1)
    for array in reader.restore(step, state).values():
      assert np.asarray(array).tobytes() == values.tobytes()


def step_directory(checkpoints: Checkpoints, step: int) -> pathlib.Path:
  return pathlib.Path(checkpoints._directory) / str(step)


def files_of(checkpoints: Checkpoints, step: int) -> list[pathlib.Path]:
  return [file for file in sorted(step_directory(checkpoints, step).rglob("*")) if file.is_file()]


def name_of(file: pathlib.Path, step: int) -> str:
  """As a checkpoint calls it: state/d/abc."""
  return str(file).rsplit(f"/{step}/", 1)[1]


def flip(file: pathlib.Path):
  content = bytearray(file.read_bytes())
  content[len(content) // 2] ^= 8
  file.write_bytes(content)


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
