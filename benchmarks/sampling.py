"""How fast a prior of 111 M parameters samples and trains, beside LlamaGen's and the same shape in `transformers`.

  python -m benchmarks.sampling --torch_python=VENV/bin/python --llamagen=CHECKOUT --out=sampling.md

VENV has torch and transformers; CHECKOUT is one of github.com/FoundationVision/LlamaGen.

Width 768, 12 layers, 12 heads, 16,384 image codes: LlamaGen-B's. 256 tokens are drawn with guidance, so that each
image is two rows, from a cache of that length; both sides start from a short prompt and draw from the whole softmax.
A training step is forward, backward and AdamW on 8 images. Time per token at a context is that of a full cache of so
many places. Parameters are fresh: no time depends on their values. The sides take turns, round by round, in one run;
each figure is of the fastest round, the median in brackets, and none counts the round that compiles. In its turn a side
takes two training steps, and the second is timed: memory that was idle for a while may have to be found again.
"""

import contextlib
import dataclasses
import functools
import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from jax import Array

from configs import scenes
from omniimage.models.attention import AttentionMask, Causal
from omniimage.models.cross_entropy import cross_entropy
from omniimage.models.kernels import Kernels, merged_rows
from omniimage.models.omni import Omni, Params
from omniimage.sampling.autoregressive import Written, prefill, sample_tokens
from omniimage.sampling.generate import row_keys
from omniimage.sampling.grammar import CODE, Grammar
from omniimage.sampling.kernels import compiled
from omniimage.settings import Settings, from_config

TORCH_PYTHON = flags.DEFINE_string("torch_python", None, "an interpreter with torch and transformers; none: ours alone")
LLAMAGEN = flags.DEFINE_string("llamagen", None, "a checkout of LlamaGen; none: without it")
THREADS = flags.DEFINE_integer("threads", 2, "of PyTorch; on a shared machine take 1", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 3, "that are counted", lower_bound=1)
BATCHES = flags.DEFINE_list("batches", ["1", "8"], "images drawn at once")
TOKENS = flags.DEFINE_integer("tokens", 256, "of an image, a square number", lower_bound=4)
DTYPES = flags.DEFINE_list("dtypes", ["float32", "bfloat16"], "of weights and activations in sampling")
TRAINING = flags.DEFINE_integer("training", 8, "images a training step; 0 leaves it out", lower_bound=0)
CONTEXTS = flags.DEFINE_list("contexts", ["64", "256", "1024", "4096"], "places of a full cache; '' leaves them out")
OUT = flags.DEFINE_string("out", None, "write the table here, as Markdown")

WIDTH, DEPTH, HEADS, MLP_WIDTH, LEVELS = 768, 12, 12, 2048, (8, 8, 8, 8, 4)
GUIDANCE, PROMPT, STEPS = 2.0, 8, 16  # tokens of a prompt; timed tokens at a context
TRAINS_BY = Kernels(dot_general=merged_rows)  # as `kernels_for` has it on a CPU
TEXT_SIZE = 512
IN_A_ROW = {"train": 2}  # of a turn, the last is timed: steps follow each other, with what memory the one before had


def main(_):
  with contextlib.ExitStack() as stack:
    sides = {"omniimage": Ours()}
    if LLAMAGEN.value:
      sides["LlamaGen"] = stack.enter_context(Theirs("torch_llamagen.py", LLAMAGEN.value))
    if TORCH_PYTHON.value:
      sides["transformers"] = stack.enter_context(Theirs("torch_llama.py"))
    text = table(measured(sides, tasks()))
  print(text)
  if OUT.value:
    Path(OUT.value).write_text(f"{text}\n")


def tasks() -> list[tuple[str, str, int]]:
  """(kind, dtype, number) of all that is measured."""
  found = [("sample", dtype, int(batch)) for dtype in DTYPES.value for batch in BATCHES.value]
  found += [("train", "float32", TRAINING.value)] if TRAINING.value else []
  return found + [("context", "float32", int(length)) for length in CONTEXTS.value if length]


def measured(sides: dict, asked: list) -> dict:
  """{task: {side: seconds of each round, None where it has no such task}}. The first round compiles, or warms up."""
  seconds = {task: defaultdict(list) for task in asked}
  for counted in range(-1, ROUNDS.value):
    for task in asked:
      for name, side in sides.items():
        took = [side.seconds(*task) for _ in range(IN_A_ROW.get(task[0], 1))][-1]
        if counted >= 0:
          seconds[task][name].append(took)
  return seconds


def table(seconds: dict) -> str:
  names = list(next(iter(seconds.values())))
  lines = ["| | " + " | ".join(names) + " | ratios |", "| --- " * (len(names) + 2) + "|"]
  for task, own in seconds.items():
    title, *work = described(*task)
    shown = [figure(own[name], *work) for name in names]
    ratios = [f"{min(own[name]) / min(own[names[0]]):.2f}" if None not in own[name] else "" for name in names[1:]]
    lines.append(f"| {title} | {' | '.join(shown)} | {', '.join(ratios)} |")
  return "\n".join(lines)


def figure(seconds: list, work: float, per_second: bool) -> str:
  if None in seconds:
    return ""
  fastest, middle = min(seconds), median(seconds)
  return f"{work / fastest:.2f} ({work / middle:.2f})" if per_second else f"{fastest / work:.1f} ({middle / work:.1f})"


def described(kind: str, dtype: str, number: int) -> tuple[str, float, bool]:
  """Title of a row, the work that its seconds are of, and whether it is shown as work a second or as time a work."""
  if kind == "sample":
    return f"tokens/s, batch {number}, {dtype}", number * TOKENS.value, True
  if kind == "train":
    return f"training images/s, batch {number}, {dtype}", number, True
  return f"ms a token, context {number:,}, {dtype}", STEPS / 1000, False


class Theirs:
  """The process of another side."""

  def __init__(self, program: str, *args: str):
    shape = dict(width=WIDTH, depth=DEPTH, heads=HEADS, mlp_width=MLP_WIDTH, codes=int(np.prod(LEVELS)))
    shape.update(prompt=PROMPT, tokens=TOKENS.value, steps=STEPS, guidance=GUIDANCE)
    self.program = str(Path(__file__).with_name(program))
    command = [TORCH_PYTHON.value, self.program, json.dumps(shape), str(THREADS.value), *args]
    self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.process.stdin.close()
    self.process.wait()

  def seconds(self, kind: str, dtype: str, number: int) -> float | None:
    print(json.dumps(dict(kind=kind, dtype=dtype, number=number)), file=self.process.stdin, flush=True)
    answer = self.process.stdout.readline()
    if not answer:
      raise RuntimeError(f"{self.program} ended while it measured {kind} {number}: see what it said above")
    return json.loads(answer)


class Ours:
  def __init__(self):
    self.kinds = {"sample": self.sample, "context": self.context, "train": self.train}

  def seconds(self, kind: str, dtype: str, number: int) -> float:
    return self.kinds[kind](dtype, number)

  def sample(self, dtype: str, batch: int) -> float:
    omni, params = model(dtype)
    prompts = np.tile(np.asarray(prompt(omni), np.int32), (2 * batch, 1))
    begun = time.perf_counter()
    np.asarray(of_model(draw, dtype)(params, prompts, row_keys(0, batch)))
    return time.perf_counter() - begun

  def context(self, dtype: str, length: int) -> float:
    omni, params = model(dtype)
    written = full_cache(omni, params, length)
    begun = time.perf_counter()
    jax.block_until_ready(of_model(go_on, dtype, donated=1)(params, written, row_keys(0, 1)))
    return time.perf_counter() - begun

  @functools.cached_property
  def state(self) -> tuple:
    """Parameters of their own and the state of AdamW: a step takes them and gives the next."""
    params = jax.tree.map(jnp.copy, model("float32")[1]["prior"])
    return params, optimizer().init(params)

  def train(self, dtype: str, batch: int) -> float:
    omni, _ = model(dtype)
    v = omni.vocabulary
    codes = v.codes + np.random.default_rng(0).integers(0, v.image_codes, (batch, TOKENS.value))
    tokens = np.concatenate([np.tile(prompt(omni), (batch, 1)), codes], axis=1).astype(np.int32)
    state = self.state
    begun = time.perf_counter()
    self.state = jax.block_until_ready(of_model(train_step, dtype, donated=0)(state, tokens))
    return time.perf_counter() - begun


@functools.cache
def model(dtype: str) -> tuple[Omni, Params]:
  omni = Omni(settings(dtype), TEXT_SIZE, scan=False)
  return omni, {"prior": jax.tree.map(lambda x: x.astype(dtype), fresh(omni))}


@functools.cache
def of_model(piece: Callable, dtype: str, donated: int | None = None) -> Callable:
  return compiled(functools.partial(piece, model(dtype)[0]), donate_argnums=donated)


def settings(dtype: str) -> Settings:
  config = scenes.get_config()
  side = round(TOKENS.value**0.5)
  config.compute_dtype = dtype
  config.data.image_size = side * config.tokenizer.patch_size
  config.data.sequence_length, config.data.images_per_row = TOKENS.value + 64, 1
  config.tokenizer.levels = LEVELS
  prior = config.prior
  prior.width, prior.depth, prior.mlp_width = WIDTH, DEPTH, MLP_WIDTH
  prior.heads = prior.kv_heads = HEADS
  prior.head_width = WIDTH // HEADS
  prior.qk_norm = prior.tied_head = False
  config.sampling.update(dict(guidance=GUIDANCE, temperature=1.0, top_k=0, top_p=1.0))
  return from_config(config)


def fresh(omni: Omni) -> Params:
  """The prior's parameters, as the model takes them."""
  places = jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, 8, 3), jnp.int32)
  return jax.jit(lambda key: omni.prior.init(key, *places, method="init_parameters")["params"])(jax.random.key(0))


def prompt(omni: Omni) -> list[int]:
  """PROMPT tokens, up to where codes begin."""
  v, side = omni.vocabulary, round(TOKENS.value**0.5)
  around = [v.user, v.assistant, *v.opening(side, side)]
  return [around[0], *range(1, PROMPT - len(around) + 1), *around[1:]]


def draw(omni: Omni, params: Params, prompts: Array, keys: Array) -> Array:
  written, _ = prefill(omni, params, prompts, jnp.full(len(prompts), PROMPT), TOKENS.value)
  numbers = jnp.arange(TOKENS.value)
  return sample_tokens(omni, params, written, PROMPT, numbers, keys, omni.settings.sampling, codes_only=True)[1]


def full_cache(omni: Omni, params: Params, length: int) -> Written:
  """Two rows, of an image under way, that have seen `length` places of zeros and have room for STEPS."""
  caches = omni.prior.apply({"params": params["prior"]}, 2, length + STEPS, method="init_caches")
  seen = jnp.broadcast_to((jnp.arange(length + STEPS) < length).astype(jnp.int32), (2, length + STEPS))
  hidden = jnp.ones((2, WIDTH), caches[0][0].dtype)
  grammar = dataclasses.replace(Grammar.start(2), **{key: jnp.full(2, 128) for key in ("rows", "columns")})
  written = Written(hidden, caches, seen, dataclasses.replace(grammar, expects=jnp.full(2, CODE)))
  return jax.tree.map(jnp.copy, written)  # all of it is donated, and some arrays are the same one


def go_on(omni: Omni, params: Params, written: Written, keys: Array):
  start = written.seen.shape[1] - STEPS
  return sample_tokens(omni, params, written, start, jnp.arange(STEPS), keys, omni.settings.sampling, codes_only=True)


def optimizer() -> optax.GradientTransformation:
  return optax.adamw(1e-4)


def train_step(omni: Omni, state: tuple, tokens_BL: Array) -> tuple:
  """The prior alone, on tokens whose last are codes; positions are one-dimensional, which costs the same."""
  omni, (params, opt_state) = dataclasses.replace(omni, kernels=TRAINS_BY), state
  v, read_BL = omni.vocabulary, tokens_BL[:, :-1]
  positions_BL3 = jnp.broadcast_to(jnp.arange(read_BL.shape[1])[None, :, None], (*read_BL.shape, 3))

  def loss(params):
    hidden, _ = omni.prior.apply({"params": params}, read_BL, positions_BL3, AttentionMask(Causal()))
    targets = tokens_BL[:, -TOKENS.value :] - v.codes
    weights = jnp.full(targets.shape, 1 / targets.size)
    kernel = omni.prior.apply({"params": params}, "image", method="head_kernel")
    return cross_entropy(hidden[:, -TOKENS.value :], kernel, targets, weights, v.image_codes, 0.0)[0]

  updates, opt_state = optimizer().update(jax.grad(loss)(params), opt_state, params)
  return optax.apply_updates(params, updates), opt_state


if __name__ == "__main__":
  app.run(main)
