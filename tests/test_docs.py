"""The documents name what there is: files, tables of modules, other documents, commands and their flags. What the
commands do is tried by hand, but for docs/conversation.md (tests/launch/test_chat_command.py)."""

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.launch import in_process

ROOT = Path(__file__).parents[1]
EVERY = sorted(path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")))
MANY = {  # that name files all along
  "CONTRIBUTING.md", "docs/reading.md", "docs/extending.md", "docs/decisions.md", "docs/language_models.md",
  "docs/conversation.md", "docs/serving.md", "docs/claim.md",
}  # fmt: skip
FILE = re.compile(r"`((?:omniimage|configs|launch|tests|benchmarks|scripts|notebooks)/[\w./-]*)(?::[\w.]+)?`")
TABLE = re.compile(r"`(omniimage(?:\.\w+)*\.[A-Z]\w+)`")


@pytest.mark.parametrize("name", EVERY)
def test_every_file_that_a_document_names_is_there(name):
  found = FILE.findall((ROOT / name).read_text())
  assert name not in MANY or len(found) > 3
  assert [path for path in found if not (ROOT / path).exists()] == []


def test_every_table_and_toy_of_the_recipes_is_there():
  text = (ROOT / "docs/extending.md").read_text()
  for table in TABLE.findall(text):
    module, name = table.rsplit(".", 1)
    assert hasattr(importlib.import_module(module), name), table
  toys = re.findall(r"\| `(tests/\S+/test_a_new_\w+\.py)` \|", text)
  assert sorted(toys) == sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_a_new_*.py"))


def commands(name: str) -> list[list[str]]:
  """The words of the lines in a document's shell blocks, those that go on in the next line as one."""
  blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / name).read_text(), re.S | re.M)
  lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
  return [shlex.split(line, comments=True) for line in lines]


def launched() -> list[tuple[str, ...]]:
  """The command and flags of every `python -m launch.COMMAND` in the documents, once."""
  found = {}
  for name in EVERY:
    for words in commands(name):
      if "-m" in words and (module := words[words.index("-m") + 1]).startswith("launch."):
        flags = (word.strip("[]") for word in words[words.index("-m") + 2 :])
        found[module.removeprefix("launch."), *(flag for flag in flags if flag.startswith("--"))] = name
  return sorted(found)


@pytest.mark.parametrize("command", launched(), ids=" ".join)
def test_every_flag_and_setting_of_a_command_is_there(command, monkeypatch):
  monkeypatch.chdir(ROOT)
  in_process.parse(*command)


def test_the_documents_have_commands():
  assert len(launched()) > 25


def anchors(name: str) -> set[str]:
  """What may stand behind # in a link to a document, as GitHub makes it of headings."""
  headings = re.findall(r"^#+ (.+)$", (ROOT / name).read_text(), re.M)
  return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", EVERY)
def test_every_link_leads_somewhere(name):
  for link in re.findall(r"\]\(([^)\s]+)\)", (ROOT / name).read_text()):
    if re.match("[a-z]+:", link):
      continue
    path, _, anchor = link.partition("#")
    target = (ROOT / name).parent / path if path else ROOT / name
    assert target.exists(), link
    assert not anchor or anchor in anchors(target.resolve().relative_to(ROOT)), link


def test_the_version_that_is_cited_is_the_packages():
  version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
  assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
  assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_documents_are_a_site_built_without_a_warning(tmp_path):
  command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stdout + done.stderr
  pages = {path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("index.html")}
  assert pages >= {Path(name).stem for name in EVERY if name.startswith("docs/")} - {"index"}
  api = (tmp_path / "api" / "index.html").read_text()
  assert "Draws and answers" in api and 'id="omniimage.systems.system.System' in api
  loaded = re.findall(r"""(?:src|href)="(https?://[^"]+\.(?:css|js|woff2?))""", (tmp_path / "index.html").read_text())
  assert loaded == [], "a page loads nothing from elsewhere"
