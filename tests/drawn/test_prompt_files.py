"""Files of prompts: what a line may be, and that a bad one is named."""

import json

import pytest

from omniimage.drawn.prompts import Wanted, as_lines, check_prompts, read_prompts
from omniimage.errors import UserError
from tests import small


@pytest.fixture
def read(tmp_path):
  """What a file of such content and name asks for."""

  def read(content: str | bytes, name: str = "prompts.jsonl", seed: int = 0):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_prompts(path, seed)

  return read


def test_a_line_of_json_may_say_seed_and_name(read):
  lines = '{"prompt": "a star", "seed": 3, "name": "star"}\n\n{"prompt": "ein Stern ★", "name": "two.png"}\n'
  assert read(lines + '{"prompt": "a circle", "seed": 18446744073709551615}', seed=7) == [
    Wanted("star", "a star", 3, 1), Wanted("two", "ein Stern ★", 7, 3), Wanted("000004", "a circle", 2**64 - 1, 4)
  ]  # fmt: skip


def test_a_file_of_text_has_a_prompt_a_line(read):
  text = "\ufeffa star\r\n\r\n  a {red} circle \r\n"
  assert read(text, "prompts.txt", seed=5) == [
    Wanted("000001", "a star", 5, 1),
    Wanted("000003", "a {red} circle", 5, 3),
  ]


def test_what_is_kept_of_a_file_asks_for_the_same(read):
  wanted = read('{"prompt": "a star"}\n{"prompt": "ein Stern ★", "seed": 2, "name": "x"}\n', seed=9)
  again = read(as_lines(wanted))
  assert [(one.name, one.prompt, one.seed) for one in again] == [(one.name, one.prompt, one.seed) for one in wanted]


@pytest.mark.parametrize(
  "line, said",
  [
    ("a star", "this is no JSON object"),
    ('"a star"', "this is no JSON object"),
    ('{"prompt": "a star"', "this is no JSON object"),
    ("[" * 100_000, "this is no JSON object"),
    ("{}", "the prompt is missing or empty"),
    ('{"prompt": " "}', "the prompt is missing or empty"),
    ('{"prompt": ["a star"]}', "the prompt is missing or empty"),
    ('{"prompt": "\\ud800"}', "no text in UTF-8"),
    (b'{"prompt": "\xff"}', "no text in UTF-8"),
    ('{"prompt": "a star", "sed": 1}', "'sed' is not of a prompt; there are prompt, seed, name"),
    ('{"prompt": "a star", "seed": -1}', "seed=-1 must be a whole number"),
    ('{"prompt": "a star", "seed": true}', "seed=True must be a whole number"),
    ('{"prompt": "a star", "seed": 1.5}', "seed=1.5 must be a whole number"),
    ('{"prompt": "a star", "seed": 18446744073709551616}', "must be a whole number"),
    ('{"prompt": "a star", "name": "a/b"}', "'a/b' is no name of a file"),
    ('{"prompt": "a star", "name": "../b"}', "is no name of a file"),
    ('{"prompt": "a star", "name": ".hidden"}', "is no name of a file"),
    ('{"prompt": "a star", "name": ""}', "is no name of a file"),
    ('{"prompt": "a star", "name": ".png"}', "is no name of a file"),
    ('{"prompt": "a star", "name": 3}', "is no name of a file"),
    ('{"prompt": "a star", "name": "a\\u0000b"}', "is no name of a file"),
    (json.dumps({"prompt": "a star", "name": "ö" * 101}), "is no name of a file"),
    ('{"prompt": "a circle", "name": "FIRST"}', "the name 'FIRST' is that of line 1"),
    ('{"prompt": "a circle", "name": "000002"}\n{"prompt": "a star", "name": "000002"}', "is that of line 2"),
  ],
)
def test_a_bad_line_is_named_with_file_and_number(read, tmp_path, line, said):
  first = b'{"prompt": "a star", "name": "first"}\n'
  with pytest.raises(UserError) as error:
    read(first + (line if isinstance(line, bytes) else line.encode()))
  assert str(error.value).startswith(f"{tmp_path}/prompts.jsonl, line ") and said in str(error.value)


def test_json_in_a_file_of_text_is_no_prompt(read):
  with pytest.raises(UserError, match="line 2: this is JSON, and the file is not called so"):
    read('a star\n{"prompt": "a star"}\n', "prompts.txt")


def test_a_file_without_prompts_and_one_that_is_not_there_are_refused(read, tmp_path):
  with pytest.raises(UserError, match="has no prompts"):
    read("\n \n")
  with pytest.raises(UserError, match="cannot be read: No such file"):
    read_prompts(tmp_path / "none.jsonl", 0)


def test_a_prompt_that_the_model_cannot_read_is_named_by_its_line(read, tmp_path):
  wanted = read(f"a star\n{'a large red star and ' * 40}\n", "prompts.txt")
  with pytest.raises(UserError, match=r"prompts.txt, line 2: the prompt has \d+ tokens and the model reads at most"):
    check_prompts(tmp_path / "prompts.txt", wanted, small.settings(), small.text_tokenizer())
