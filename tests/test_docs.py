"""The documents name what there is: files, and tables of modules. What they say in shell or Python is
tried by hand, but for docs/conversation.md (tests/launch/test_chat_command.py)."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = (
  "README.md", "docs/reading.md", "docs/extending.md", "docs/decisions.md", "docs/language_models.md",
  "docs/conversation.md", "docs/serving.md", "docs/claim.md",
)  # fmt: skip
FILE = re.compile(r"`((?:omniimage|configs|launch|tests|benchmarks|scripts|notebooks)/[\w./-]*)(?::[\w.]+)?`")
TABLE = re.compile(r"`(omniimage(?:\.\w+)*\.[A-Z]\w+)`")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_that_a_document_names_is_there(name):
  found = FILE.findall((ROOT / name).read_text())
  assert name == "README.md" or len(found) > 3
  assert [path for path in found if not (ROOT / path).exists()] == []


def test_every_table_and_toy_of_the_recipes_is_there():
  text = (ROOT / "docs/extending.md").read_text()
  for table in TABLE.findall(text):
    module, name = table.rsplit(".", 1)
    assert hasattr(importlib.import_module(module), name), table
  toys = re.findall(r"\| `(tests/\S+/test_a_new_\w+\.py)` \|", text)
  assert sorted(toys) == sorted(str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_a_new_*.py"))
