"""The training loop: stages in order, data read ahead, checkpoints, metrics, sample sheets; resumable at any step."""

import contextlib
import dataclasses
import json
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from omniimage import seeds, versions
from omniimage.checkpoint import Checkpoints
from omniimage.data.batches import Batches
from omniimage.data.sources import open_source
from omniimage.data.text import TextTokenizer
from omniimage.distributed import preemption
from omniimage.distributed.agree import first_says, number_of_each
from omniimage.distributed.devices import check_devices
from omniimage.distributed.mesh import batch_sharding, check_rows, global_batch, local_rows, make_mesh
from omniimage.distributed.sharding import state_shardings
from omniimage.errors import CheckpointError, UserError
from omniimage.interop.pretrained import is_pretrained
from omniimage.interop.start import complete
from omniimage.settings import Settings, StageSettings, from_config
from omniimage.step_folders import check_path
from omniimage.streams import Stream, fold
from omniimage.systems.system import System, rules_of
from omniimage.training.accounts import Accounts, Rate, input_metrics
from omniimage.training.coded import Coded
from omniimage.training.continuing import check_config, check_schedule, log_changes, restore, untrained_parts
from omniimage.training.disk_errors import disk_errors
from omniimage.training.faults import FaultLog, RollBack
from omniimage.training.hangs import Hangs
from omniimage.training.log_file import LogFile
from omniimage.training.metrics import MetricsWriter, Progress, last_wall_seconds
from omniimage.training.optimizer import learning_rate, make_optimizer
from omniimage.training.resuming import find_step, leave_later, set_old_run_aside, step_to_go_back_to
from omniimage.training.samples import SampleSheets
from omniimage.training.sharded import jitted_step, system_for
from omniimage.training.state import TrainState, begin_with, enter_stage, fresh_state, leave_stage, stage_at
from omniimage.training.step import StepFn
from omniimage.workdir import Workdir, check_vocabulary


def train(config: ConfigDict, workdir: str, begin_anew: bool = False, from_step: int | None = None) -> TrainState:
  """Trains every stage of the schedule that the workdir has not yet trained, and returns the final state.

  With `begin_anew` what the workdir holds is set aside first; with `from_step` what came after that checkpoint.

  Raises UserError, before anything is compiled, where config, data, devices or workdir cannot work; later where the
  disk is full, the workdir vanishes or the run diverges for good. Raises `preemption.Preempted` once it has stopped as
  it was asked to.
  """
  check_devices()
  place = Workdir(workdir)
  with (
    jax.enable_x64(False),  # else noise and optimizer would differ, and the run with them
    contextlib.closing(place),
    disk_errors(place),
    contextlib.closing(Trainer.prepare(config, place, begin_anew)) as trainer,
    preemption.notice() as asked_to_stop,
  ):
    state = trainer.restore_or_init(from_step)
    trainer.checkpoints.reserve(state)
    first = int(state.step)
    while (stage := stage_at(trainer.settings, int(state.step))[0]) is not None:
      try:
        state = trainer.run_stage(state, stage, asked_to_stop)
      except RollBack as why:
        state = trainer.go_back(why)
    trainer.accounts.turn_to("checkpoint", int(state.step))
    trainer.checkpoints.wait()
    trainer.accounts.turn_to("evaluation")
    if int(state.step) > first or not first_says((trainer.workdir.samples / "final.png").exists):
      trainer.sheets.write(state, "final")
  return state


@dataclasses.dataclass(frozen=True)
class Trainer:
  """What a run needs beside its state."""

  config: dict[str, Any]
  settings: Settings
  workdir: Workdir
  text_tokenizer: TextTokenizer
  system: System
  mesh: Mesh
  batches: Batches
  reweighed: dict[str, Batches]  # of the stages that draw from a mixture by weights of their own
  coded: Coded | None  # for the stages that read codes, if there are any
  checkpoints: Checkpoints
  sheets: SampleSheets
  accounts: Accounts
  metrics: MetricsWriter
  faults: FaultLog
  log: LogFile
  hangs: Hangs

  @classmethod
  def prepare(cls, config: ConfigDict, workdir: Workdir, begin_anew: bool = False) -> "Trainer":
    if is_pretrained(workdir.path):
      raise UserError(f"{workdir.path} is an exported model, which training would replace; choose another --workdir")
    accounts, config = Accounts(), complete(config, workdir.begun if not begin_anew else lambda: None)
    settings = from_config(config)
    mesh = make_mesh(settings.mesh)
    for name in settings.schedule:
      check_rows(settings.stages[name].rows, settings.stages[name].accumulate, mesh, name)
    text_tokenizer = workdir.open_vocabulary(settings.data.vocabulary)
    system = system_for(settings, text_tokenizer.size, mesh)
    system.check_files()
    data, sizes = settings.data, settings.buckets
    sources = [open_source(data, split, sizes, text_tokenizer, system.vocabulary) for split in ("train", "test")]
    batches = Batches(sources[0], data, system.vocabulary, text_tokenizer, sizes, settings.seed)
    reweighed = {}
    for name in settings.schedule:
      if (own := settings.data_of(name)) != data:
        source = open_source(own, "train", sizes, text_tokenizer, system.vocabulary)
        reweighed[name] = Batches(source, own, system.vocabulary, text_tokenizer, sizes, settings.seed)
    coded = Coded.open(system, text_tokenizer)
    check_path(workdir.checkpoints, write=True)
    workdir.create()
    workdir.lock.take()
    versions.refuse_unsealed(workdir.checkpoints)
    if begin_anew:
      set_old_run_aside(workdir)
      workdir.create()
    bad_records, metrics = workdir.growing(workdir.bad_records), workdir.growing(workdir.metrics)
    batches.keep_list(bad_records, first=jax.process_index() == 0)
    for own in reweighed.values():
      own.keep_list(bad_records, first=False)
    run, has_saved = settings.run, lambda: workdir.unsaved.unlink(missing_ok=True)
    return cls(
      config=json.loads(json.dumps(config.to_dict())),
      settings=settings,
      workdir=workdir,
      text_tokenizer=text_tokenizer,
      system=system,
      mesh=mesh,
      batches=batches,
      reweighed=reweighed,
      coded=coded,
      checkpoints=Checkpoints(workdir.checkpoints, run.keep_checkpoints, run.keep_every, has_saved),
      sheets=SampleSheets(system, text_tokenizer, sources, workdir.samples, list(mesh.devices.flat)),
      accounts=accounts,
      metrics=MetricsWriter(metrics),
      faults=FaultLog(metrics / "faults.jsonl", settings.faults, batches),
      log=(log := LogFile(workdir.growing(workdir.log))),
      hangs=Hangs(accounts, log, settings.faults.end_hanging_after),
    )

  def close(self):
    with contextlib.closing(self.log), contextlib.closing(self.hangs), contextlib.closing(self.checkpoints):
      self.metrics.close()
      self.workdir.bring()

  def restore_or_init(self, from_step: int | None = None) -> TrainState:
    """The state of the last undamaged checkpoint, or of that of `from_step`, or fresh parameters in the first stage.

    A run whose schedule was over goes on with the stages that a longer one adds.
    """
    step = find_step(self.checkpoints, self.workdir, from_step)
    if step is not None:
      about = self._about(step)
      lost = (last_wall_seconds(self.workdir.metrics) or 0.0) - sum(about["wall"].values())
      self.accounts.go_on(about["wall"], about["seconds"], max(0.0, lost))
    state = self._state_of(step)
    if from_step is not None:
      leave_later(self.checkpoints, from_step)
    self.workdir.keep_vocabulary(self.settings.data.vocabulary)
    self.workdir.write_config(self.config)
    if step is not None:
      print(f"goes on from step {step} of {self.settings.total_steps}", file=sys.stderr, flush=True)
    return state

  def go_back(self, why: RollBack) -> TrainState:
    """The last checkpoint before the updates that did not count; its next batch is the first behind them."""
    self.accounts.turn_to("checkpoint")
    self.checkpoints.wait()
    step = step_to_go_back_to(self.checkpoints, self.workdir, why.step)
    self.faults.went_back(why, step)
    about = {"wall": {}, "seconds": {}} if step is None else self.checkpoints.metadata(step)
    self.accounts.go_back(about["wall"], about["seconds"])
    self.checkpoints.drop_after(step or 0)
    state = self._state_of(step)
    return state.replace(batch_index=jax.device_put(np.int32(why.batch_index), state.batch_index.sharding))

  def run_stage(self, state: TrainState, name: str, asked_to_stop: Callable[[int], bool]) -> TrainState:
    """From wherever the state is in the stage to its end, where it passes on to the next. Raises RollBack."""
    stage, (_, start) = self.settings.stages[name], stage_at(self.settings, int(state.step))
    stop, run, sharding = start + stage.steps, self.settings.run, batch_sharding(self.mesh)
    index, step, accounts = int(state.batch_index), int(state.step), self.accounts
    source = self.coded.batches if self.system.reads_codes(stage) else self.reweighed.get(name, self.batches)
    self.faults.follow(source)
    if self.coded:
      self.coded.check(self.system, state)
      bad_records = self.workdir.growing(self.workdir.bad_records)
      source.keep_list(bad_records, first=False)  # what stages of the other kind have listed is read again
    self.metrics.begin(step)
    accounts.enter(name)
    accounts.turn_to("compile", step + 1)
    step_fn = self.compile_step(state, name, start)
    own = local_rows(stage.rows, sharding)
    ahead = source.iterate(index, index + stop - step, stage.rows, own)
    unseen, rate, last_loss, counted, compiled = deque(), Rate(), None, True, set()
    with contextlib.closing(ahead) as batches, Progress(name, step - start, stage.steps) as progress:
      accounts.turn_to("input")
      for index, batch in batches:
        source.check()
        if (size := source.size_of(index)) in compiled:
          accounts.turn_to("steps")
        else:  # the first step of each size
          accounts.turn_to("compile")
          progress.compiling(size)
          compiled.add(size)
        state, metrics = step_fn(state, global_batch(batch, sharding))
        accounts.turn_to("steps")
        step += 1
        unseen.append((step, index, stage.rows, metrics))
        stopping = asked_to_stop(step)
        due = step == stop or stopping or step % run.checkpoint_every == 0
        # Waiting for the step before keeps the device busy with this one meanwhile.
        while len(unseen) > (0 if due else 1):
          last_loss, counted = self.faults.see(*unseen.popleft())
        self.checkpoints.check()
        self.workdir.lock.check()
        progress.update(last_loss, rate.tick(batch["image_mask"].sum() * stage.rows / len(own)))
        if step % run.log_every == 0 or step == stop:
          logged = self._logged(metrics, stage, step - start - 1, rate)
          self.metrics.write(step, name, logged | source.statistics(index, stage.rows))
        if step == stop:
          accounts.turn_to("compile")
          state = self._pass_on(state)
        # Not between updates that do not count: it would push out the checkpoint to go back to.
        if due and (counted or stopping or step == stop):
          self._save(state)
        if stopping:
          self.checkpoints.wait()
          raise preemption.Preempted(step)
        if step == stop or (run.sample_every and step % run.sample_every == 0):
          accounts.turn_to("evaluation")
          self.sheets.write(state, f"{step:06d}")
        accounts.turn_to("input", step + 1)
    return state

  def compile_step(self, state: TrainState, stage: str, start: int) -> StepFn:
    """The stage's step on this mesh, its state donated."""
    step = jitted_step(self.system, stage, start, self.mesh, state)

    def on_mesh(state, batch):
      with jax.set_mesh(self.mesh):
        return step(state, batch)

    return on_mesh

  def _about(self, step: int) -> dict[str, Any]:
    """What a checkpoint says of itself. UserError if the run cannot go on from it with this config."""
    (stored, about), where = self._stored(step), self._where(step)
    check_config(self.system, stored, self.config, where, step)
    check_vocabulary(about, self.settings, self.text_tokenizer, where)
    check_schedule(stored, self.config, step, where)
    log_changes(stored, self.config)
    return about

  def _stored(self, step: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The config that a checkpoint was made with, as one of this version, and all that it says of itself."""
    about = self.checkpoints.metadata(step)
    return versions.present_config(about["config"], versions.checkpoint_format(about, self._where(step))), about

  def _where(self, step: int) -> str:
    return str(self.workdir.checkpoints / str(step))

  def _had_ended(self, step: int) -> bool:
    return not any(path.startswith("ema/") for path in self.checkpoints.shapes(step))

  def _state_of(self, step: int | None) -> TrainState:
    """The state of a checkpoint, or the one that a run begins with."""
    stage, _ = stage_at(self.settings, step or 0)
    had_ended = step is not None and self._had_ended(step)

    def init(key):
      state = fresh_state(self.system.init(key))
      return state if stage is None or had_ended else self._enter(state, stage)

    key = fold(seeds.key(self.settings.seed), Stream.PARAMETERS)
    abstract = jax.eval_shape(init, key)
    shardings = state_shardings(self.mesh, rules_of(self.system), abstract)
    if step is None:
      starts = self.system.starts()
      with jax.set_mesh(self.mesh):
        return begin_with(starts, jax.jit(init, out_shardings=shardings)(key))
    placed = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
    stored, _ = self._stored(step)
    state = restore(self.checkpoints, step, placed, lambda: init(key), untrained_parts(self.system, stored, step))
    if int(state.step) != step:  # seals of older versions do not know their step
      raise CheckpointError(
        f"{self.workdir.checkpoints / str(step)} is the checkpoint of step {int(state.step)}, copied over this name; "
        "move it away, and the same command goes on from an older one"
      )
    return self._pass_on(state) if had_ended and stage else state

  def _enter(self, state: TrainState, stage: str) -> TrainState:
    row = self.settings.stages[stage]
    return enter_stage(state, row.moves, make_optimizer(self.settings.optimizer, row))

  def _pass_on(self, state: TrainState) -> TrainState:
    """Leaves the stage that has just ended and enters the next, if there is one."""
    following, _ = stage_at(self.settings, int(state.step))

    def pass_on(state):
      state = leave_stage(state)
      return state if following is None else self._enter(state, following)

    shardings = state_shardings(self.mesh, rules_of(self.system), jax.eval_shape(pass_on, state))
    with jax.set_mesh(self.mesh):
      return jax.jit(pass_on, out_shardings=shardings)(state)

  def _save(self, state: TrainState):
    self.accounts.turn_to("checkpoint")
    about = {
      "seconds": self.accounts.stages,
      "wall": self.accounts.kinds,
      "config": self.config,
      "vocabulary": self.text_tokenizer.fingerprint,
    }
    self.workdir.bring()  # lines of steps that are not made again
    self.checkpoints.save(int(state.step), state, versions.stamped(about))

  def _logged(self, metrics, stage: StageSettings, stage_step: int, rate: Rate) -> dict[str, float]:
    rates = {
      f"learning_rate/{part}": learning_rate(self.settings.optimizer, stage, stage.rates[part])(stage_step)
      for part in stage.moves
    }
    values = {**metrics, **rates, "images_per_second": rate.value, **self.accounts.metrics()}
    values |= input_metrics(number_of_each(self.accounts.input_wait()))
    return {name: float(value) for name, value in values.items()}
