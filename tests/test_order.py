"""The files of tests that take longest come first, and each stays whole."""

from types import SimpleNamespace

from tests import conftest


def test_every_file_that_is_to_come_first_is_there_and_once():
  assert [file for file in conftest.LONGEST if not (conftest.TESTS / file).is_file()] == []
  assert len(set(conftest.LONGEST)) == len(conftest.LONGEST)


def test_the_longest_come_first_and_all_else_keeps_its_order():
  first, second = conftest.LONGEST[:2]
  given = (("a.py", 1), (second, 1), (second, 2), ("b.py", 1), (first, 1), ("b.py", 2))
  items = [SimpleNamespace(path=conftest.TESTS / file, name=name) for file, name in given]
  conftest.pytest_collection_modifyitems(items)
  found = [(item.path.relative_to(conftest.TESTS).as_posix(), item.name) for item in items]
  assert found == [(first, 1), (second, 1), (second, 2), ("a.py", 1), ("b.py", 1), ("b.py", 2)]


def test_no_two_files_below_have_one_name():
  """pytest imports them by it, whatever folder they are in, unless that is a package."""
  found = [path.name for path in conftest.TESTS.rglob("test_*.py") if not (path.parent / "__init__.py").exists()]
  assert sorted(found) == sorted(set(found))
