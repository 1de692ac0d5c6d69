"""AdamW (Loshchilov & Hutter 2019) with warm-up and cosine decay, one for each part that moves, clipped by itself."""

import jax
import optax

from omniimage.settings import OptimizerSettings, StageSettings

UNDECAYED = ("scale", "bias", "modulation", "null_tokens", "null_text")


def make_optimizer(settings: OptimizerSettings, stage: StageSettings) -> optax.GradientTransformation:
  """Updates {part: gradients} of the parts that move in a stage; its state is {part: state}."""
  return per_part({part: _adamw(settings, stage, stage.rate(part)) for part in stage.moves})


def per_part(optimizers: dict[str, optax.GradientTransformation]) -> optax.GradientTransformation:
  """Each part of a dictionary of parameters under its own optimizer."""

  def init(params):
    return {part: optimizer.init(params[part]) for part, optimizer in optimizers.items()}

  def update(grads, state, params):
    both = {part: optimizer.update(grads[part], state[part], params[part]) for part, optimizer in optimizers.items()}
    return {part: updates for part, (updates, _) in both.items()}, {part: new for part, (_, new) in both.items()}

  return optax.GradientTransformation(init, update)


def learning_rate(settings: OptimizerSettings, stage: StageSettings, peak: float) -> optax.Schedule:
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=peak,
    warmup_steps=stage.warmup_steps,
    decay_steps=max(stage.steps, stage.warmup_steps + 1),
    end_value=peak * settings.final_rate,
  )


def _adamw(settings: OptimizerSettings, stage: StageSettings, peak: float) -> optax.GradientTransformation:
  return optax.chain(
    optax.clip_by_global_norm(settings.clip_norm),
    optax.scale_by_adam(settings.b1, settings.b2),
    optax.add_decayed_weights(settings.weight_decay, mask=_decayed),
    optax.scale_by_learning_rate(learning_rate(settings, stage, peak)),
  )


def _decayed(params):
  """True for matrices and tables. By name: a stack of norm scales has two dimensions as well."""
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in UNDECAYED, params)
