import copy
import functools

from hypothesis import given, settings
from hypothesis import strategies as st

from omniimage.ranges import Range, shown
from omniimage.settings import SettingsError, from_config
from tests import numbers_to_try, small

CONFIG = small.config().to_dict()
LEAVES = list(numbers_to_try.leaves(CONFIG))


@settings(numbers_to_try.REPEATABLE, max_examples=400)
@given(st.sampled_from(LEAVES), numbers_to_try.numbers, st.booleans())
def test_settings_with_one_number_changed_are_refused_in_a_line_or_have_a_meaning(leaf, number, behind):
  path, value = leaf
  if isinstance(value, tuple):
    number = (*value[1:], number) if behind else (number, *value[1:])
  config = copy.deepcopy(CONFIG)
  functools.reduce(lambda group, key: group[key], path[:-1], config)[path[-1]] = number
  try:
    made = from_config(config)
  except SettingsError as error:
    said = str(error)
    assert said.startswith("config") and len(said.splitlines()) == 1 and len(said) < 300
    assert path[-1] in said or (len(path) > 1 and path[-2] in said), said
  else:
    numbers_to_try.check_all(made)


@numbers_to_try.REPEATABLE
@given(numbers_to_try.numbers)
def test_a_range_holds_what_is_finite_and_between_its_bounds(number):
  assert (number in Range(-(2**80), 2**80)) == (type(number) is not bool and -(2**80) <= number <= 2**80)


@numbers_to_try.REPEATABLE
@given(numbers_to_try.numbers)
def test_a_number_is_shown_in_a_few_words(number):
  assert 0 < len(shown(number)) < 90 and (abs(number) > 2**128 or number != number or shown(number) == repr(number))


def test_numbers_too_long_for_python_to_print_are_shown():
  assert shown(10**5000) == "2**16609…" and shown(-(10**5000)) == "-2**16609…"
