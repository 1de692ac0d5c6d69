"""Makes the golden values again: logits and greedy continuations of the tiny models, by PyTorch and `transformers`.

python -m tests.interop.golden.make
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from tests.interop import tiny_models

NEW = 64  # tokens


def golden(folder: Path) -> dict[str, np.ndarray]:
  model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
  prompt = torch.from_numpy(tiny_models.prompt().astype(np.int64))
  with torch.no_grad():
    logits = model(prompt).logits[:, :, ::8]
    # The ids that text is made of: padding rows are not to be sampled.
    ids = prompt
    for _ in range(NEW):
      following = model(ids).logits[:, -1, :1024].argmax(-1, keepdim=True)
      ids = torch.cat([ids, following], dim=1)
  return {"logits": logits.numpy(), "greedy": ids[:, prompt.shape[1] :].numpy().astype(np.int16)}


def main():
  for kind in tiny_models.MODELS:
    with tempfile.TemporaryDirectory() as folder:
      found = golden(tiny_models.write(Path(folder), kind))
    np.savez_compressed(tiny_models.GOLDEN / f"{kind}.npz", **found)


if __name__ == "__main__":
  main()
