"""Plans of every variant and stage on the topologies it is meant for, at one commit, as one table.

  python -m benchmarks.plans                         # all of them, some two hours on two cores
  python -m benchmarks.plans --only='^1b '           # those whose name matches

Each plan is `launch.plan` in a process of its own, for the TPU compiler may die. Its record goes to
OUT/COMMIT/NAME.json, and the table to OUT/COMMIT/plans.md; the same command goes on where it was stopped. Changes that
are not committed would belong to no commit: with some, nothing is planned.
"""

import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import app, flags

ONLY = flags.DEFINE_string("only", "", "regular expression that a plan's name must hold")
WORKERS = flags.DEFINE_integer("workers", 1, "plans at one time; each takes some GB", lower_bound=1)
OUT = flags.DEFINE_string("out", "runs/plans", "folder of the records, by commit")

ROOT = Path(__file__).resolve().parents[1]
PLANNED = ("omniimage", "configs", "launch", "benchmarks")  # what a plan depends on
STAGES = ("tokenizer", "prior", "decoder", "joint")
GB = 1e9


@dataclasses.dataclass(frozen=True)
class Planned:
  """Attributes:
  config: variant of configs/omni.py.
  note: what distinguishes the plan from others of its stage and topology.
  changes: of the config, by dotted key.
  """

  config: str
  stage: str
  topology: str
  slices: int = 1
  note: str = ""
  changes: Mapping[str, object] = dataclasses.field(default_factory=dict)

  @property
  def title(self) -> str:
    return f"{self.config} {self.stage}" + (f", {self.note}" if self.note else "")

  @property
  def place(self) -> str:
    return f"{self.slices} × {self.topology}" if self.slices > 1 else self.topology

  @property
  def name(self) -> str:
    return f"{self.title} on {self.place}"

  def record(self, folder: Path) -> Path:
    return folder / f"{re.sub(r'[^a-z0-9]+', '-', self.name)}.json"

  def command(self, out: Path) -> list[str]:
    own = ("--config=configs/omni.py:" + self.config, f"--topology={self.topology}", f"--num_slices={self.slices}")
    changes = (f"--config.{key}={value}" for key, value in self.changes.items())
    return [sys.executable, "-m", "launch.plan", *own, f"--stage={self.stage}", f"--out={out}", *changes]


def _joint(topology: str, rows: int) -> Planned:
  return Planned("1b", "joint", topology, changes={"stages.joint.rows": rows})


def _prior(note: str, **changes) -> Planned:
  return Planned("1b", "prior", "v5e:16x16", note=note, changes=changes)


def _peer(topology: str, tokens: int, rows: int, slices: int = 1, **changes) -> Planned:
  changes = {"data.sequence_length": tokens, "stages.prior.rows": rows, **changes}
  return Planned("peer", "prior", topology, slices, f"{tokens:,} tokens", changes)


BY_COMPILER = {"gather_params": "compiler"}
MUON = {"optimizer.muon_rms": 0.2}
TABLE = (
  *(Planned("1b", stage, "v5e:16x16") for stage in STAGES),
  *(Planned("300m", stage, "v5e:2x4") for stage in STAGES),
  _peer("v5e:16x16", 2048, 2048),
  _peer("v5e:16x16", 1024, 2048),
  _peer("v5p:4x4x4", 2048, 512, remat="projections"),
  _peer("v5p:4x4x4", 1024, 512, remat="projections"),
  _peer("v5e:16x16", 2048, 4096, slices=2),
  *(Planned("7b", stage, "v5p:8x8x8") for stage in STAGES),
  *(Planned("7b", stage, "v5e:16x16", 2) for stage in STAGES),
  _joint("v5e:4x4", 64),
  _joint("v5p:4x4x4", 256),
  _joint("v5p:8x8x8", 2048),
  _joint("v5p:16x16x24", 24576),
  _prior("gathered by the compiler over tensor", **BY_COMPILER, **{"mesh.tensor": 2}),
  _prior("gathered by the compiler over sequence", **BY_COMPILER, **{"mesh.sequence": 2}),
  _prior("remat full", remat="full"),
  _prior("remat offload", remat="offload"),
  _prior("Muon", **MUON),
  Planned("7b", "prior", "v5p:8x8x8", note="Muon", changes=MUON),
  Planned("1b", "sample", "v5e:2x4", changes={**BY_COMPILER, "mesh.data": 1, "mesh.fsdp": 1, "mesh.tensor": 8}),
)


def main(_):
  commit = _commit()
  folder = Path(OUT.value) / commit
  folder.mkdir(parents=True, exist_ok=True)
  asked = [planned for planned in TABLE if re.search(ONLY.value, planned.name)]
  if not asked:
    raise app.UsageError(f"no plan's name matches {ONLY.value!r}; there are {'; '.join(p.name for p in TABLE)}")

  def make(planned: Planned):
    made = record_of(planned, folder)
    print(f"{planned.name}: {made.get('failed') or row(planned, made)}", flush=True)
    (folder / "plans.md").write_text(table(folder, commit))

  with ThreadPoolExecutor(WORKERS.value) as pool:
    list(pool.map(make, asked))
  print(table(folder, commit))


def record_of(planned: Planned, folder: Path) -> dict:
  """The record of a plan, made now if it has not been before. {"failed": why} where the compiler refused or died."""
  path = planned.record(folder)
  if not path.exists():
    unfinished = path.with_suffix(".unfinished")
    run = subprocess.run(planned.command(unfinished), cwd=ROOT, capture_output=True, text=True, errors="replace")
    if run.returncode and not unfinished.exists():
      lines = run.stderr.strip().splitlines()
      why = f"signal {-run.returncode}" if run.returncode < 0 else (lines[-1] if lines else f"exit {run.returncode}")
      unfinished.write_text(json.dumps({"failed": why[:300]}))
    unfinished.rename(path)
  return json.loads(path.read_text())


def table(folder: Path, commit: str) -> str:
  """All records of a commit, in the order of TABLE."""
  lines = [
    "| config, stage | topology | mesh | rows / images a chip | HBM | received | synchronous "
    "| step, s: low / likely / high | MFU: low / likely / high | compiled in, s |",
    "| --- " * 10 + "|",
  ]
  versions = {}
  for planned in TABLE:
    path = planned.record(folder)
    if path.exists():
      record = json.loads(path.read_text())
      versions |= record.get("versions", {})
      lines.append(row(planned, record))
  made_with = ", ".join(f"{name} {version}" for name, version in versions.items())
  return "\n".join(lines) + f"\n\nCommit {commit}; {made_with}.\n"


def row(planned: Planned, record: Mapping) -> str:
  cells = [planned.title, planned.place]
  if "failed" in record:
    return f"| {' | '.join([*cells, record['failed'], *[''] * 7])} |"
  cells.append(" × ".join(f"{axis} {size}" for axis, size in record["mesh"].items() if size > 1))
  cells.append(f"{record['rows_per_chip']:g} / {record['images_per_chip']:g}")
  total = record["hbm_bytes_per_chip"]["total"]
  if not record["fits"]:
    needed = f"needs {total / GB:.1f}" if total else "too much"
    return f"| {' | '.join([*cells, f'does not fit: {needed}', *[''] * 5])} |"
  kinds = {kind: size / GB for kind, size in record["collective_bytes_per_chip"].items() if size >= 5e6}
  listed = ", ".join(f"{kind} {size:.2f}" for kind, size in kinds.items())
  seconds, mfu = record["step_seconds"], record["mfu"]
  digits = 3 if seconds["likely"] >= 1e-3 else 5
  cells += [
    f"{total / GB:.1f}",
    f"{sum(kinds.values()):.1f} ({listed})",
    f"{record['synchronous_share']:.0%}",
    " / ".join(f"{seconds[level]:.{digits}f}" for level in ("low", "likely", "high")),
    f"{mfu['low']:.0%} / **{mfu['likely']:.1%}** / {mfu['high']:.0%}",
    f"{record['compile_seconds']:.0f}",
  ]
  return f"| {' | '.join(cells)} |"


def _commit() -> str:
  """The checkout's commit. UsageError where what plans depend on has changed since."""
  changed = _git("status", "--porcelain", "--", *PLANNED)
  if changed:
    raise app.UsageError(f"commit first, so that the table can name what it was made with:\n{changed}")
  return _git("rev-parse", "--short", "HEAD")


def _git(*arguments: str) -> str:
  return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
  app.run(main)
