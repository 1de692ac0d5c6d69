"""One cell of `benchmarks.binding`: a system with a seed, trained, tuned on validation scenes and graded on others.

A cell is a folder: `cell.json` says what it is of, `config.py` that for `launch.train`; `run` is its workdir;
`tuning.json` has every setting of sampling that was tried, `test-07.json` and `unseen-07.json` what became of scenes of
seven objects. Each file is written whole, once what it holds is known, and is then there: a cell that was killed goes
on behind the last one.
"""

import dataclasses
import functools
import itertools
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from launch import config_file
from omniimage import streams
from omniimage.data.scenes.grader import Score
from omniimage.data.scenes.world import COLORS, SHAPES, Scene
from omniimage.data.sources.mixture import MixtureSettings
from omniimage.data.sources.scenes import ScenesSettings, ScenesSource
from omniimage.data.sources.source import SourceSettings
from omniimage.data.tasks import Grader
from omniimage.errors import UserError
from omniimage.evaluation.held_out import drawn, prompt_and_target
from omniimage.files import write_whole
from omniimage.sampling.drawing import Draws
from omniimage.settings import Settings, from_config
from omniimage.streams import Stream
from omniimage.systems import load_run, open_generator, open_system
from omniimage.workdir import Run

ROOT = Path(__file__).resolve().parents[1]
SPLITS = ("test", "unseen")  # that are graded
WORDS = 0  # seed of the captions' words: all systems are asked in the same ones

# Every color and every shape is once in a pair that is never seen.
WORLD = {"unseen": tuple(f"{color} {shape}" for color, shape in zip(COLORS, SHAPES)), "validation": 0.05}
CONFIG_FILE = """# What this cell trains: python -m launch.train --config=PATH --workdir=DIR
import json
from pathlib import Path

from ml_collections import ConfigDict


def get_config():
  return ConfigDict(json.loads((Path(__file__).parent / "cell.json").read_text())["config"])
"""
_OF_THE_CANVAS = {"diffusion_steps": (10, 20, 50), "text_guidance": (1.0, 1.5, 2.0, 3.0, 5.0)}
# By system, which settings of sampling are tried, every value with every other. Of equals the first is taken: what is
# cheaper stands first.
TUNED: dict[str, dict[str, tuple]] = {
  "omni": {"diffusion_steps": (10, 20), "guidance": (1.0, 1.5, 2.5), "text_guidance": (1.0, 2.0)},
  "dalle1": {"guidance": (1.0, 1.25, 1.5, 2.0, 2.5, 4.0)},
  "stable_diffusion": _OF_THE_CANVAS,
  "pixel_diffusion": _OF_THE_CANVAS,
  "unclip": {"guidance": (1.0, 2.0, 4.0), "diffusion_steps": (20, 50), "text_guidance": (1.0, 1.5, 2.0, 3.0)},
}


@dataclasses.dataclass(frozen=True)
class Plan:
  """What is done with every system alike.

  Attributes:
    config: of a system, whose name takes the place of {}.
    world: settings of all scenes that a config trains on.
    changes: of every config besides, by dotted key.
    scenes: of each number of objects, fewer where the world has fewer.
    tuning_scenes: of the validation split, of all numbers of objects, for each setting of sampling that is tried.
    objects: numbers of objects that are asked for, at most; as many as the config's world has.
    tuned: as TUNED.
  """

  config: str
  world: Mapping[str, Any]
  changes: Mapping[str, Any]
  scenes: int
  tuning_scenes: int
  objects: int
  batch: int
  tuned: Mapping[str, Mapping[str, tuple]] = dataclasses.field(default_factory=lambda: TUNED)


@dataclasses.dataclass(frozen=True)
class Cell:
  """`folder` is that of all cells."""

  plan: Plan
  system: str
  seed: int
  folder: Path

  @property
  def name(self) -> str:
    return f"{self.system}/{self.seed}"

  @property
  def place(self) -> Path:
    return self.folder / self.system / str(self.seed)

  @functools.cached_property
  def config(self) -> ConfigDict:
    """UserError where the file, the variant or a key of the changes does not exist."""
    config = config_file.load(self.plan.config.format(self.system))
    source = config.data.source
    try:
      if source.name == "mixture":
        source.sources = tuple(
          {**own, **(self.plan.world if own["name"] == "scenes" else {})} for own in source.sources
        )
      else:
        source.update(self.plan.world)
      config.update_from_flattened_dict({"seed": self.seed, **self.plan.changes})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
      raise UserError(f"{self.plan.config.format(self.system)} cannot be changed so: {error}") from None
    return config

  @functools.cached_property
  def settings(self) -> Settings:
    return from_config(self.config)

  def claim(self):
    """Says in the folder what the cell is of. UserError where its files are of another config or plan, or where nothing
    says what is tuned of its system, and on what."""
    if not world_of(self.settings.data.source).validation:
      raise UserError(f"{self.plan.config.format(self.system)} sets nothing aside to tune on: data.source.validation=0")
    if self.system not in self.plan.tuned:
      raise UserError(f"nothing is tuned for {self.system!r}: give it a row in TUNED of benchmarks/binding_cells.py")
    self.place.mkdir(parents=True, exist_ok=True)
    plan = {name: getattr(self.plan, name) for name in ("scenes", "tuning_scenes", "batch")}
    own = json.loads(json.dumps({"config": self.config.to_dict(), "plan": plan}))
    path = self.place / "cell.json"
    there = {key: value for key, value in _read(path, own).items() if key != "commit"}
    if there != own:
      raise UserError(
        f"{path}: what is there is of another configuration, {'; '.join(_differences(there, own)[:3])}; give another "
        "--out, or move it away"
      )
    if not path.exists():
      _write(path, own)
    write_whole(self.place / "config.py", CONFIG_FILE.encode())

  def train(self):
    """Trains the run to its end, in a process of its own, from wherever it was left. SystemExit where that fails."""
    done = self.place / "trained.json"
    if done.exists():
      return
    config, workdir = f"--config={self.place / 'config.py'}", f"--workdir={self.place / 'run'}"
    _run([sys.executable, "-m", "launch.train", config, workdir])
    _write(done, {})

  def measure(self, say: Callable[[str], None]):
    """Tunes and grades what has been trained, as far as that is not done yet."""
    pieces = [piece for piece in self.pieces() if not piece.exists()]
    if not pieces:
      return
    run, chosen = load_run(self.place / "run"), None
    for piece in pieces:
      say(f"{self.name}: {piece.stem}")
      if piece.stem == "tuning":
        self._tune(run, piece)
      else:
        chosen = chosen or generator(run, _read(self.place / "tuning.json")["chosen"])  # compiles for all pieces
        split, objects = piece.stem.split("-")
        self._grade(run, chosen, piece, split, int(objects))

  def pieces(self) -> list[Path]:
    """All that is measured, in order."""
    world = world_of(self.settings.data.source)
    splits = [split for split in SPLITS if split != "unseen" or world.unseen]
    numbers = range(world.min_objects, min(self.plan.objects, world.max_objects) + 1)
    graded = [self.place / f"{split}-{number:02d}.json" for split in splits for number in numbers]
    return [self.place / "tuning.json", *graded]

  def _tune(self, run: Run, path: Path):
    """Tries every setting on the same scenes, and notes each once it is known."""
    values, world, unfinished = (
      self.plan.tuned[self.system],
      world_of(run.settings.data.source),
      path.with_suffix(".part.json"),
    )
    objects = world.min_objects, min(self.plan.objects, world.max_objects)
    prompts = Prompts.read(run, "validation", objects, self.plan.tuning_scenes)
    tried = _read(unfinished, {"tried": []})["tried"]
    for combination in itertools.product(*values.values()):
      sampling = dict(zip(values, combination))
      if all(sampling != other["sampling"] for other in tried):
        scores = prompts.answered(generator(run, sampling), self.seed, self.plan.batch)
        tried.append({"sampling": sampling, "objects": float(np.mean([b for score in scores for b in score.bound]))})
        _write(unfinished, {"tried": tried})
    best = max(tried, key=lambda other: other["objects"])  # of equals the first
    _write(path, {"chosen": best["sampling"], "scenes": len(prompts.scenes), "tried": tried})
    unfinished.unlink()

  def _grade(self, run: Run, chosen: Draws, path: Path, split: str, objects: int):
    """Of every scene, how many of its objects are bound and whether all of it is right."""
    prompts = Prompts.read(run, split, (objects, objects), self.plan.scenes)
    scores = prompts.answered(chosen, self.seed, self.plan.batch)
    bound, whole = [sum(score.bound) for score in scores], [int(score.exact) for score in scores]
    mistakes = dict(sum((score.mistakes for score in scores), Counter()))
    _write(path, {"objects": objects, "bound": bound, "whole": whole, "mistakes": mistakes})


@dataclasses.dataclass(frozen=True)
class Prompts:
  """Different scenes and what asks for them."""

  captions: Sequence[str]
  scenes: Sequence[Scene]
  grader: Grader

  @classmethod
  def read(cls, run: Run, split: str, objects: tuple[int, int], number: int) -> "Prompts":
    """The first `number` scenes of a split of the run's world with so many objects, fewer if it has fewer."""
    least, most = objects
    world = world_of(run.settings.data.source)
    world = dataclasses.replace(world, min_objects=least, max_objects=most, tasks=("text_to_image",))
    source = ScenesSource(world, split, run.settings.buckets, run.text_tokenizer)
    (task,) = source.tasks
    records = itertools.islice(source.distinct(), number)
    turns = [source.record(i, streams.generator(Stream.CAPTIONS, WORDS, i)) for i in records]
    captions = [prompt_and_target(task, own)[0] for own in turns]
    return cls(captions, [task.grader.expected(own) for own in turns], task.grader)

  def answered(self, draws: Draws, seed: int, batch: int) -> list[Score]:
    """The scores of what a generator draws of them."""
    images = drawn(draws, self.captions, seed, batch).images
    return [self.grader.score(scene, seen) for scene, seen in zip(self.scenes, self.grader.grade(images))]


def generator(run: Run, sampling: Mapping[str, Any]) -> Draws:
  """What draws with a run's parameters, and these settings in the place of its own. SettingsError where they cannot
  be."""
  settings = dataclasses.replace(run.settings, sampling=dataclasses.replace(run.settings.sampling, **sampling))
  return open_generator(open_system(settings, run.text_tokenizer.size), run.params, run.text_tokenizer)


def world_of(source: SourceSettings) -> ScenesSettings:
  """The scenes that are graded: the source itself, or the first of a mixture. UserError if it is neither, or if other
  scenes of the mixture do not hold out what these do."""
  parts = source.sources if isinstance(source, MixtureSettings) else (source,)
  worlds = [part for part in parts if isinstance(part, ScenesSettings)]
  if not worlds or worlds[0] is not parts[0]:
    raise UserError(f"data.source is {source.name}; scenes are graded: give them, or a mixture that begins with them")
  if any(world.held_out != worlds[0].held_out for world in worlds):
    raise UserError("data.source.sources hold out different things, so that one trains on what is asked of another")
  return worlds[0]


def _read(path: Path, default: dict | None = None) -> dict:
  return json.loads(path.read_text()) if default is None or path.exists() else default


def _write(path: Path, content: Mapping):
  write_whole(path, (json.dumps({"commit": commit(), **content}) + "\n").encode())


@functools.cache
def commit() -> str:
  """That of the checkout, marked where something is not committed; empty where git says nothing."""
  command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
  return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


def _run(command: Sequence[str]):
  """A command to its end. Whatever ends this process asks it to end well first."""
  process = subprocess.Popen(command)
  try:
    code = process.wait()
  except BaseException:
    process.terminate()
    process.wait()
    raise
  if code:
    sys.exit(code)


def _differences(there: Any, here: Any, path: str = "") -> list[str]:
  """Dotted paths with the values of both."""
  if isinstance(there, dict) and isinstance(here, dict):
    keys = dict.fromkeys((*there, *here))
    return [line for key in keys for line in _differences(there.get(key), here.get(key), f"{path}.{key}".strip("."))]
  return [] if there == here else [f"{path} {there!r} there and {here!r} here"]
