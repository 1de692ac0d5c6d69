"""launch.sample in a process that notes in the folder NOTES which pictures it has written whole, for
`benchmarks.many_prompts`."""

import os
from pathlib import Path

from launch import cli, sample
from omniimage.drawn.folder import Folder

write = Folder.write


def noted(self, name: str, png: bytes):
  write(self, name, png)
  with (Path(os.environ["NOTES"]) / f"{os.getpid()}.txt").open("a") as file:
    file.write(f"{name}\n")


if __name__ == "__main__":
  Folder.write = noted
  cli.run(sample.main)
