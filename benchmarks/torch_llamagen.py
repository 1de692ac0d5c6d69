"""A side of benchmarks/sampling.py: LlamaGen's own model and sampler, in an interpreter that has PyTorch.

It imports nothing of the project, but `autoregressive` and `utils` of a checkout of FoundationVision/LlamaGen (GitHub).
Each line on its standard input asks for a measurement, as JSON {"kind", "dtype", "number"}; the answer is a line with
its seconds, or null for what its sampler cannot be asked.
"""

import json
import sys
import time

import torch


def main(shape: dict, threads: int, checkout: str):
  sys.path.insert(0, checkout)
  from autoregressive.models.generate import generate
  from autoregressive.models.gpt import ModelArgs, Transformer

  torch.set_num_threads(threads)
  sizes = dict(dim=shape["width"], n_layer=shape["depth"], n_head=shape["heads"])
  args = ModelArgs(**sizes, vocab_size=shape["codes"], block_size=shape["tokens"])
  models = {}
  for line in sys.stdin:
    asked = json.loads(line)
    dtype = asked["dtype"]
    if dtype not in models:
      models[dtype] = Transformer(args).to(getattr(torch, dtype))
    model, number = models[dtype], asked["number"]
    seconds = None
    if asked["kind"] == "sample":
      seconds = sample(generate, model, shape, number)
    elif asked["kind"] == "train":
      seconds = train(model, shape, number)
    print(json.dumps(seconds), flush=True)


def sample(generate, model, shape: dict, batch: int) -> float:
  """Seconds of a drawing: of classes and, beside each, the one without."""
  classes = torch.arange(batch)
  model.eval()
  begun = time.perf_counter()
  generate(model, classes, shape["tokens"], cfg_scale=shape["guidance"], temperature=1.0, top_k=0, top_p=1.0)
  return time.perf_counter() - begun


def train(model, shape: dict, batch: int) -> float:
  """Seconds of one step: forward, backward, AdamW. The first builds the optimizer's state and is not to be counted."""
  if not hasattr(model, "optimizer"):
    model.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
  for layer in model.layers:
    layer.attention.kv_cache = None
  codes, classes = torch.randint(0, shape["codes"], (batch, shape["tokens"])), torch.arange(batch)
  model.train()
  begun = time.perf_counter()
  _, loss = model(codes[:, :-1], classes, targets=codes)
  loss.backward()
  model.optimizer.step()
  model.optimizer.zero_grad()
  return time.perf_counter() - begun


if __name__ == "__main__":
  main(json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
