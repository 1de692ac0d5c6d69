"""Imports point one way: each module imports only from its own layer and from those below it."""

import ast
from pathlib import Path

import omniimage

ROOT = Path(omniimage.__file__).parents[1]
RECORDS = tuple(
  f"omniimage.data.{name}"
  for name in (
    "sources",
    "scenes",
    "tasks",
    "conversation",
    "emoji",
    "records",
    "prepared",
    "fetched",
    "codes",
    "formats",
    "images",
    "color_profiles",
  )
)
# What a run is, among several processes.
KEEPS = ("omniimage.checkpoint", "omniimage.lock", "omniimage.bucket_lock", "omniimage.workdir")
# From top to bottom; a module belongs to the longest entry that begins its name. Entries of one row know each other.
LAYERS = (
  ("launch",),
  ("omniimage.serving",),
  ("omniimage.plan", "omniimage.prepare", "omniimage.chat", "omniimage.drawn"),
  ("omniimage.training.loop",),
  ("omniimage.training.samples",),
  ("omniimage.evaluation",),
  ("omniimage.training",),
  ("omniimage.systems",),
  ("omniimage.sampling",),
  ("omniimage.models", "omniimage.data", "omniimage.distributed", "omniimage.planning", "omniimage.interop", *KEEPS),
  ("omniimage.settings",),
  RECORDS,  # a source's settings lie beside it
  ("omniimage",),
)


def layer_of(module: str) -> int:
  entries = [(entry, level) for level, row in enumerate(LAYERS) for entry in row]
  return max((len(entry), level) for entry, level in entries if f"{module}.".startswith(f"{entry}."))[1]


def imports(path: Path) -> set[str]:
  """The project's modules that a file imports, anywhere in it."""
  found, tree = set(), ast.parse(path.read_text())
  package = ".".join(path.relative_to(ROOT).parent.parts)
  for node in ast.walk(tree):
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
      node.body = []  # no import when it runs
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      module = ".".join(filter(None, (package if node.level else "", node.module)))
      found |= {f"{module}.{alias.name}" for alias in node.names} if is_package(module) else {module}
  return {name for name in found if name.split(".")[0] in ("omniimage", "launch")}


def is_package(module: str) -> bool:
  return (ROOT / module.replace(".", "/")).is_dir()


def test_nothing_imports_upwards():
  upwards = []
  for folder in ("omniimage", "launch"):
    for path in sorted((ROOT / folder).rglob("*.py")):
      module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
      upwards += [
        f"{module} imports {name}"
        for name in sorted(imports(path))
        if name.split(".")[0] == "launch" != folder or layer_of(name) < layer_of(module)
      ]
  assert upwards == []


def test_models_know_nothing_of_meshes_files_configs_or_flags():
  known = {name for path in (ROOT / "omniimage/models").rglob("*.py") for name in imports(path)}
  allowed = ("omniimage.models", "omniimage.settings", "omniimage.size", "omniimage.vocabulary")
  assert {name for name in known if not name.startswith(allowed)} == set()
