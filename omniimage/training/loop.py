"""The training loop: stages in order, data read ahead, checkpoints, metrics, sample sheets; resumable at any step."""

import dataclasses
import sys
import time

import jax
import numpy as np
from ml_collections import ConfigDict

from omniimage.checkpoint import Checkpoints
from omniimage.data.batches import Batches
from omniimage.data.sources import open_source
from omniimage.data.text import TextTokenizer
from omniimage.distributed.mesh import batch_sharding, check_rows, global_batch, make_mesh
from omniimage.distributed.sharding import state_shardings
from omniimage.errors import UserError
from omniimage.models.omni import Omni
from omniimage.settings import Settings, StageSettings, from_config
from omniimage.training.metrics import MetricsWriter, Progress
from omniimage.training.optimizer import learning_rate, make_optimizer
from omniimage.training.samples import SampleSheets
from omniimage.training.sharded import jitted_step, model_for
from omniimage.training.state import TrainState, enter_stage, fresh_state, leave_stage, stage_at
from omniimage.training.step import StepFn
from omniimage.workdir import Workdir


def train(config: ConfigDict, workdir: str) -> TrainState:
  """Trains every stage of the schedule that the workdir has not yet trained, and returns the final state.

  Raises UserError, before anything is compiled, where config, data, devices or workdir cannot work.
  """
  trainer = Trainer.prepare(from_config(config), Workdir(workdir))
  state, seconds = trainer.restore_or_init()
  first = int(state.step)
  trainer.workdir.write_config(config)
  writer = MetricsWriter(trainer.workdir.metrics, int(state.step))
  try:
    while (stage := stage_at(trainer.settings, int(state.step))[0]) is not None:
      state = trainer.run_stage(state, stage, seconds, writer)
  finally:
    writer.close()
    trainer.checkpoints.close()
  if int(state.step) > first or not (trainer.workdir.samples / "final.png").exists():
    trainer.sheets.write(state, "final")
  return state


@dataclasses.dataclass(frozen=True)
class Trainer:
  """What a run needs beside its state."""

  settings: Settings
  workdir: Workdir
  omni: Omni
  mesh: jax.sharding.Mesh
  batches: Batches
  checkpoints: Checkpoints
  sheets: SampleSheets

  @classmethod
  def prepare(cls, settings: Settings, workdir: Workdir) -> "Trainer":
    mesh = make_mesh(settings.mesh)
    for name in settings.schedule:
      check_rows(settings.stages[name].rows, settings.stages[name].accumulate, mesh, name)
    text_tokenizer = TextTokenizer.load(settings.data.vocabulary)
    omni = model_for(settings, text_tokenizer.size, mesh)
    sources = [
      open_source(settings.data, split, settings.token_grid, text_tokenizer, omni.vocabulary)
      for split in ("train", "test")
    ]
    batches = Batches(sources[0], settings.data, omni.vocabulary, text_tokenizer, settings.token_grid, settings.seed)
    workdir.create()
    checkpoints = Checkpoints(workdir.checkpoints, settings.run.keep_checkpoints)
    sheets = SampleSheets(settings, text_tokenizer, sources, workdir.samples)
    return cls(settings, workdir, omni, mesh, batches, checkpoints, sheets)

  def restore_or_init(self) -> tuple[TrainState, dict[str, float]]:
    """The last checkpoint, or fresh parameters in the first stage; and the seconds each stage has taken.

    A run whose schedule was over goes on with the stages that a longer one adds.
    """
    step = self.checkpoints.latest()
    stage, start = stage_at(self.settings, step or 0)
    finished = step is not None and not any(path.startswith("ema/") for path in self.checkpoints.shapes(step))
    if finished and stage is not None and step != start:
      raise UserError(
        f"the run had ended at step {step}, and its optimizer with it; {stage} cannot go on in the middle. "
        "Put another stage behind the last one instead, or take another workdir"
      )

    def init(key):
      state = fresh_state(self.omni.init(key))
      return state if stage is None or finished else self._enter(state, stage)

    key = jax.random.key(self.settings.seed)
    abstract = jax.eval_shape(init, key)
    shardings = state_shardings(self.mesh, abstract)
    if step is None:
      with jax.set_mesh(self.mesh):
        return jax.jit(init, out_shardings=shardings)(key), {}
    placed = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings)
    state = self.checkpoints.restore(step, placed)
    print(f"goes on from step {step} of {self.settings.total_steps}", file=sys.stderr, flush=True)
    return self._pass_on(state) if finished and stage else state, self.checkpoints.metadata(step)["seconds"]

  def run_stage(self, state: TrainState, name: str, seconds: dict, writer: MetricsWriter) -> TrainState:
    """From wherever the state is in the stage to its end, where it passes on to the next."""
    stage, (_, start) = self.settings.stages[name], stage_at(self.settings, int(state.step))
    stop, run = start + stage.steps, self.settings.run
    step_fn = self.compile_step(state, name, start)
    index, step = int(state.batch_index), int(state.step)
    batches = self.batches.iterate(
      index,
      index + stop - step,
      stage.rows,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )
    progress, clock, previous = Progress(name, step - start, stage.steps), Clock(), None
    for _, batch in batches:
      images = int(np.sum(batch["image_mask"])) * jax.process_count()
      state, metrics = step_fn(state, global_batch(batch, batch_sharding(self.mesh)))
      step += 1
      # Waiting for the step before keeps the device busy with this one meanwhile.
      loss = None if previous is None else float(previous["loss"])
      previous = metrics
      progress.update(loss, clock.tick(images))
      if step % run.log_every == 0 or step == stop:
        writer.write(step, name, self._logged(metrics, stage, step - start - 1, clock))
      if step == stop:
        break
      if step % run.checkpoint_every == 0:
        self._save(state, seconds, name, clock)
      if run.sample_every and step % run.sample_every == 0:
        self.sheets.write(state, f"{step:06d}")
    progress.close()
    state = self._pass_on(state)
    self._save(state, seconds, name, clock)
    self.sheets.write(state, f"{step:06d}")
    return state

  def compile_step(self, state: TrainState, stage: str, start: int) -> StepFn:
    """The stage's step on this mesh, its state donated."""
    step = jitted_step(self.omni, stage, start, self.mesh, state)

    def on_mesh(state, batch):
      with jax.set_mesh(self.mesh):
        return step(state, batch)

    return on_mesh

  def _enter(self, state: TrainState, stage: str) -> TrainState:
    row = self.settings.stages[stage]
    return enter_stage(state, row.moves, make_optimizer(self.settings.optimizer, row))

  def _pass_on(self, state: TrainState) -> TrainState:
    """Leaves the stage that has just ended and enters the next, if there is one."""
    following, _ = stage_at(self.settings, int(state.step))

    def pass_on(state):
      state = leave_stage(state)
      return state if following is None else self._enter(state, following)

    shardings = state_shardings(self.mesh, jax.eval_shape(pass_on, state))
    with jax.set_mesh(self.mesh):
      return jax.jit(pass_on, out_shardings=shardings)(state)

  def _save(self, state: TrainState, seconds: dict, stage: str, clock: "Clock"):
    seconds[stage] = seconds.get(stage, 0.0) + clock.since_saved()
    self.checkpoints.save(int(state.step), state, {"seconds": dict(seconds)})

  def _logged(self, metrics, stage: StageSettings, stage_step: int, clock: "Clock") -> dict[str, float]:
    rates = {
      f"learning_rate/{part}": learning_rate(self.settings.optimizer, stage, stage.rate(part))(stage_step)
      for part in stage.moves
    }
    return {name: float(value) for name, value in {**metrics, **rates, "images_per_second": clock.rate}.items()}


class Clock:
  """Images a second, smoothed, and the time since the last save."""

  def __init__(self):
    self._last = self._saved = time.monotonic()
    self.rate = 0.0

  def tick(self, images: int) -> float:
    now = time.monotonic()
    rate, self._last = images / max(now - self._last, 1e-9), now
    self.rate = rate if not self.rate else 0.9 * self.rate + 0.1 * rate
    return self.rate

  def since_saved(self) -> float:
    now = time.monotonic()
    elapsed, self._saved = now - self._saved, now
    return elapsed
