import sys

import pytest
from ml_collections import ConfigDict

from launch import config_file
from omniimage.errors import UserError


@pytest.mark.parametrize(
  "text, said",
  [
    ("def get_config(:\n  pass\n", "{file}, line 1: SyntaxError: invalid syntax"),
    ("x = '\0'\n", "Error: source code string"),
    ("\n\nimport nowhere\n", "{file}, line 3: ModuleNotFoundError: No module named 'nowhere'"),
    ("x = 1\n", "{file} has no function get_config"),
    ("get_config = 3\n", "{file} has no function get_config"),
    ("\ndef get_config():\n  pass\n", "{file}, line 2: get_config returned None; is a return missing?"),
    ("\ndef get_config():\n  return {}\n", "{file}, line 2: get_config returned dict, not a ConfigDict"),
    ("\ndef get_config():\n  return 1 / 0\n", "{file}, line 3: ZeroDivisionError: division by zero"),
    ("def get_config():\n  raise KeyError('a')\n", "{file}, line 2: KeyError: 'a'"),
    ("def get_config():\n  raise OSError('gone\\naway')\n", "{file}, line 2: OSError: gone away"),
    ("def get_config():\n  raise SystemExit(0)\n", "{file}, line 2: SystemExit: 0"),
    ("def get_config():\n  return get_config()\n", "{file}, line 2: RecursionError: maximum recursion depth exceeded"),
    ("def get_config():\n  from beside import f\n  return f()\n", "{folder}/beside.py, line 2: NameError: name 'g'"),
    ("\ndef get_config(a, b):\n  pass\n", "{file}, line 2: get_config cannot be called without a variant"),
  ],
)
def test_what_is_wrong_in_a_config_file_is_one_line_with_file_and_line(tmp_path, monkeypatch, text, said):
  monkeypatch.syspath_prepend(tmp_path)
  monkeypatch.delitem(sys.modules, "beside", raising=False)
  (tmp_path / "beside.py").write_text("def f():\n  return g\n")
  file = tmp_path / "mine.py"
  file.write_text(text)
  with pytest.raises(UserError) as raised:
    config_file.load(str(file))
  assert said.format(file=file, folder=tmp_path) in str(raised.value) and "\n" not in str(raised.value)


def test_a_variant_that_is_not_taken_is_refused(tmp_path):
  file = tmp_path / "mine.py"
  file.write_text("def get_config():\n  pass\n")
  with pytest.raises(UserError, match="get_config takes no variant, and 'tiny' is given"):
    config_file.load(f"{file}:tiny")


def test_a_config_is_loaded_and_locked():
  config = config_file.load("configs/scenes.py:tiny")
  assert isinstance(config, ConfigDict) and config.is_locked and config.data.source.max_objects == 1
