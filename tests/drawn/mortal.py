"""launch.sample in processes of which one dies: DIE_AFTER=INDEX:PICTURES kills that one before it writes one more.

python -m tests.drawn.mortal --workdir=… --prompts=… --out=…
"""

import os
import signal
import sys

import jax

from launch import cli, sample
from omniimage.drawn.folder import Folder

write, written = Folder.write, []


def mortal(self, name: str, png: bytes):
  index, pictures = map(int, os.environ["DIE_AFTER"].split(":"))
  if jax.process_index() == index and len(written) >= pictures:
    print(f"dies after {len(written)} pictures", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
  write(self, name, png)
  written.append(name)


if __name__ == "__main__":
  if "DIE_AFTER" in os.environ:
    Folder.write = mortal
  cli.run(sample.main)
