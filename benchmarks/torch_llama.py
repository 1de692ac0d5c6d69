"""The other side of benchmarks/sampling.py: `LlamaForCausalLM` of `transformers`, in an interpreter that has PyTorch.

It imports nothing of the project. Each line on its standard input asks for a measurement, as JSON
{"kind", "dtype", "number"}; the answer is a line with its seconds.
"""

import json
import sys
import time

import torch
from transformers import LlamaConfig, LlamaForCausalLM, StaticCache


def main(shape: dict, threads: int):
  torch.set_num_threads(threads)
  config = LlamaConfig(
    vocab_size=shape["codes"],
    hidden_size=shape["width"],
    intermediate_size=shape["mlp_width"],
    num_hidden_layers=shape["depth"],
    num_attention_heads=shape["heads"],
    num_key_value_heads=shape["heads"],
    max_position_embeddings=2**16,
  )
  models = {}
  for line in sys.stdin:
    asked = json.loads(line)
    dtype = asked["dtype"]
    if dtype not in models:
      models[dtype] = LlamaForCausalLM(config).to(getattr(torch, dtype)).eval()
    seconds = MEASUREMENTS[asked["kind"]](models[dtype], shape, asked["number"])
    print(json.dumps(seconds), flush=True)


@torch.inference_mode()
def sample(model, shape: dict, batch: int) -> float:
  """Seconds of a drawing: prompts and, beside each, the one without its text; then the tokens one by one."""
  begun = time.perf_counter()
  cache = StaticCache(config=model.config, max_cache_len=shape["prompt"] + shape["tokens"])
  ids = torch.ones((2 * batch, shape["prompt"]), dtype=torch.long)
  drawn = []
  for _ in range(shape["tokens"]):
    ids, token = step(model, ids, cache, shape["guidance"])
    drawn.append(token)
  torch.cat(drawn, dim=1).numpy()
  return time.perf_counter() - begun


@torch.inference_mode()
def context(model, shape: dict, length: int) -> float:
  """Seconds of `steps` tokens behind a cache that is full but for them; of zeros, whose time is that of any values."""
  cache = StaticCache(config=model.config, max_cache_len=length + shape["steps"])
  ids = torch.ones((2, 1), dtype=torch.long)
  step(model, ids, cache, shape["guidance"])  # makes its arrays
  for layer in cache.layers:
    layer.cumulative_length.fill_(length)
  begun = time.perf_counter()
  for _ in range(shape["steps"]):
    ids, _ = step(model, ids, cache, shape["guidance"])
  return time.perf_counter() - begun


def step(model, ids, cache, guidance: float):
  logits = model(input_ids=ids, cache=cache, use_cache=True, logits_to_keep=1).logits[:, -1].float()
  conditional, unconditional = logits.chunk(2)
  guided = unconditional + guidance * (conditional - unconditional)
  token = torch.multinomial(torch.softmax(guided, dim=-1), 1)
  return torch.cat([token, token]), token


def train(model, shape: dict, batch: int) -> float:
  """Seconds of one step: forward, backward, AdamW. The first builds the optimizer's state and is not to be counted."""
  if not hasattr(model, "optimizer"):
    model.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
  ids = torch.randint(0, shape["codes"], (batch, shape["prompt"] + shape["tokens"]))
  begun = time.perf_counter()
  logits = model(input_ids=ids[:, :-1], use_cache=False).logits[:, -shape["tokens"] :]
  loss = torch.nn.functional.cross_entropy(logits.reshape(-1, shape["codes"]), ids[:, -shape["tokens"] :].reshape(-1))
  loss.backward()
  model.optimizer.step()
  model.optimizer.zero_grad()
  return time.perf_counter() - begun


MEASUREMENTS = {"sample": sample, "context": context, "train": train}

if __name__ == "__main__":
  main(json.loads(sys.argv[1]), int(sys.argv[2]))
