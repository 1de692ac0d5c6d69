"""What is said of a prompt before it is drawn."""

import pytest

from omniimage.errors import UserError
from omniimage.sampling.prompts import check_text, read_prompt, unseen
from tests import small

LONG = "a large red star in the top left, " + "and a small blue circle in the bottom right " * 3


def test_what_the_painter_does_not_see_of_a_long_prompt_is_said():
  s, tokenizer = small.settings(**{"decoder.text_length": 24}), small.text_tokenizer()
  tokens = tokenizer.encode(LONG)
  said = unseen([LONG], s, tokenizer)
  assert f"reads the last 24 of the prompt's {len(tokens)} tokens (decoder.text_length) and does not see" in said
  lost = tokenizer.decode(tokens[:-24])
  assert LONG.startswith(lost) and repr(lost) in said and "\n" not in said and "more prompts" not in said
  assert "so it is with 1 more prompts" in unseen(["a star", LONG, f"{LONG}!", LONG], s, tokenizer)


def test_nothing_is_said_of_prompts_that_the_painter_reads_whole():
  tokenizer = small.text_tokenizer()
  for length in (len(tokenizer.encode(LONG)), 500):
    assert unseen(["a star", LONG], small.settings(**{"decoder.text_length": length}), tokenizer) == ""


def test_a_prompt_that_is_no_text_is_refused_in_one_line():
  with pytest.raises(UserError, match=r"no text in UTF-8: '\\udcff red star'; type it again") as error:
    check_text("\udcff red star")
  str(error.value).encode()  # can be printed
  check_text("ein großer roter Stern 🌟")


def test_a_caption_of_data_that_is_no_text_is_drawn_with_the_replacement_character():
  s, tokenizer = small.settings(), small.text_tokenizer()
  assert tokenizer.decode(read_prompt("\udcff red star", s, tokenizer)) == "\ufffd red star"
