"""The columns of each data set of edits that is known, in each of the forms that they come in."""

import base64
import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from omniimage.data.formats import open_format
from omniimage.data.formats.format import Given
from omniimage.data.formats.recipes import RECIPES
from omniimage.data.records import Text
from omniimage.errors import UserError
from tests.data.formats.made import picture, problems, read, said, tar, write

BEFORE, AFTER, LAST = picture(1), picture(2), picture(3)
ASKED = ["make it red", "red, please"]
EDIT = [("user", ["<0>", "make it red"]), ("assistant", ["<1>"])]
# A row of each, as its makers name the columns, some that mean nothing to us among them; and what it says.
ROWS = {
  "Bagel": (
    {"image_list": [BEFORE, AFTER, LAST], "instruction_list": [ASKED, ["add a hat"]]},
    [*EDIT, ("user", ["add a hat"]), ("assistant", ["<2>"])],
  ),
  "OmniEdit": (
    {"omni_edit_id": "a", "task": "swap", "src_img": BEFORE, "edited_img": AFTER, "edited_prompt_list": ASKED},
    EDIT,
  ),
  "InstructPix2Pix": (
    {"original_prompt": "a", "original_image": BEFORE, "edit_prompt": "make it red", "edited_image": AFTER},
    EDIT,
  ),
  "UltraEdit": (
    {"source_caption": "a", "source_image": BEFORE, "edit_prompt": "make it red", "edited_image": AFTER},
    EDIT,
  ),
  "MagicBrush": (
    {"img_id": "7", "turn_index": 1, "source_img": BEFORE, "instruction": "make it red", "target_img": AFTER},
    EDIT,
  ),
  "HQ-Edit": (
    {"input": "a", "input_image": BEFORE, "edit": "make it red", "inverse_edit": "green", "output_image": AFTER},
    EDIT,
  ),
  "AnyEdit": (
    {"edit_type": "color", "image_file": BEFORE, "edit_instruction": "make it red", "edited_file": AFTER},
    EDIT,
  ),
  "ShareGPT-4o-Image": (
    {"input_prompt": "mix them", "input_image": [BEFORE, AFTER], "output_image": LAST},
    [("user", ["<0>", "<1>", "mix them"]), ("assistant", ["<2>"])],
  ),
  "GPT-Image-Edit": (
    {"instruction": "make it red", "instruction_type": "original", "input": BEFORE, "output": AFTER},
    EDIT,
  ),
  "OmniGen2": (
    {"task_type": "edit", "instruction": "make it red", "input_images": [BEFORE], "output_image": AFTER},
    EDIT,
  ),
}
FORMS = (
  "parquet of bytes",
  "parquet of structs",
  "lines",
  "lines of data URIs",
  "a tar of members",
  "a tar that names",
)


def test_each_known_set_is_tested():
  assert set(ROWS) == set(RECIPES)


def replaced(value, change):
  """A row with all of its pictures changed."""
  if isinstance(value, dict):
    return {name: replaced(entry, change) for name, entry in value.items()}
  if isinstance(value, list):
    return [replaced(entry, change) for entry in value]
  return change(value) if isinstance(value, bytes) else value


def as_parquet(root, rows) -> str:
  root.mkdir(exist_ok=True)
  parquet.write_table(pyarrow.Table.from_pylist(rows), root / "0.parquet")
  return str(root)


def as_lines(root, rows) -> str:
  return write(root, {"0.jsonl": "".join(json.dumps(row) + "\n" for row in rows)})


def as_tar(root, rows) -> str:
  """Pictures in lists are named by the json; others are columns by their names."""
  members = []
  for i, row in enumerate(rows):
    rest = {}
    for column, value in row.items():
      if isinstance(value, bytes):
        members.append((f"{i:04}.{column}.png", value))
      elif isinstance(value, list) and all(isinstance(entry, bytes) for entry in value):
        members += [(f"{i:04}.{column}_{k}.png", entry) for k, entry in enumerate(value)]
        rest[column] = [f"{column}_{k}.png" for k in range(len(value))]
      elif isinstance(value, list):
        members.append((f"{i:04}.{column}.json", json.dumps(value)))
      elif isinstance(value, str):
        members.append((f"{i:04}.{column}.txt", value))
    members.append((f"{i:04}.json", json.dumps(rest)))
  return tar(root / "0.tar", members)


def source(root, form: str, rows) -> str:
  """The rows in a form."""
  files: dict[str, bytes] = {}

  def named(content: bytes) -> str:
    return next(name for name, known in files.items() if known == content)

  for content in (BEFORE, AFTER, LAST):
    files[f"images/{len(files)}.png"] = content
  match form:
    case "parquet of bytes":
      return as_parquet(root, rows)
    case "parquet of structs":
      return as_parquet(root, replaced(rows, lambda content: {"bytes": content, "path": None}))
    case "lines":
      write(root, files)
      return as_lines(root, replaced(rows, named))
    case "lines of data URIs":
      return as_lines(
        root, replaced(rows, lambda content: "data:image/png;base64," + base64.b64encode(content).decode())
      )
    case "a tar of members":
      return as_tar(root, rows)
  members = [
    (f"{i}.{name.split('/')[1]}", content) for i, _ in enumerate(rows) for name, content in sorted(files.items())
  ]
  jsons = replaced(rows, lambda content: named(content).split("/")[1])
  return tar(root / "0.tar", [*members, *((f"{i}.json", json.dumps(row)) for i, row in enumerate(jsons))])


def line(root, name: str) -> dict:
  """A row that names its pictures, which are there."""
  return json.loads((Path(source(root, "lines", [ROWS[name][0]])) / "0.jsonl").read_text())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", RECIPES)
def test_a_row_becomes_turns_in_which_the_user_shows_and_asks_and_the_assistant_draws(tmp_path, name, form):
  row, told = ROWS[name]
  path = source(tmp_path / "set", form, [row, row])
  assert open_format(path, None, Given())[0] == "edits"
  found = read(path)
  assert [said(each) for each in found] == [told, told]
  shown = (BEFORE, AFTER, LAST)[: sum(part.startswith("<") for _, parts in told for part in parts)]
  assert all(each.record.images == shown for each in found)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", RECIPES)
def test_a_placeholder_in_an_instruction_is_text(tmp_path, name, form):
  row = dict(ROWS[name][0])
  recipe = RECIPES[name]
  column = recipe.instructions if name == "Bagel" else recipe.told
  literal = "write <image> and </image> on it"
  row[column] = [literal, literal] if name == "Bagel" else literal
  turns = read(source(tmp_path / "set", form, [row]))[0].record.turns
  texts = [part.texts for turn in turns if turn.role == "user" for part in turn.content if isinstance(part, Text)]
  assert texts == [(literal,)] * len(texts) and texts


@pytest.mark.parametrize("form", FORMS)
def test_alternatives_of_an_instruction_are_kept_as_such(tmp_path, form):
  rows = [ROWS["OmniEdit"][0], {**ROWS["OmniEdit"][0], "edited_prompt_list": [*ASKED, " ", ASKED[0]]}]
  found = read(source(tmp_path / "set", form, rows))
  assert [each.record.turns[0].content[1] for each in found] == [Text(tuple(ASKED))] * 2
  steps = read(source(tmp_path / "steps", form, [ROWS["Bagel"][0]]))[0].record.turns
  assert steps[0].content[1] == Text(tuple(ASKED)) and steps[2].content == (Text(("add a hat",)),)


BAD = {
  "edited_img: there is no file gone.png": ("OmniEdit", {"edited_img": "gone.png"}),
  "src_img: ../a.png leads outside": ("OmniEdit", {"src_img": "../a.png"}),
  "src_img: http://x.org/a.png is an address": ("OmniEdit", {"src_img": "http://x.org/a.png"}),
  "no picture: src_img is empty": ("OmniEdit", {"src_img": {"bytes": None, "path": None}}),
  "src_img: a picture must be a file name, a data: URI or bytes; this is a int": ("OmniEdit", {"src_img": 7}),
  "edited_prompt_list says nothing": ("OmniEdit", {"edited_prompt_list": ["", " "]}),
  "edited_prompt_list is a dict, not a text": ("OmniEdit", {"edited_prompt_list": {"a": 1}}),
  "edited_prompt_list is not UTF-8": ("OmniEdit", {"edited_prompt_list": ["\ud83d"]}),
  "image_list[1]: there is no file gone.png": ("Bagel", {"image_list": ["images/0.png", "gone.png", "images/2.png"]}),
  "image_list has 2 pictures and instruction_list 2 entries": ("Bagel", {"image_list": ["images/0.png"] * 2}),
  "instruction_list[1] says nothing": ("Bagel", {"instruction_list": [["a"], []]}),
  "image_list has 1 pictures and instruction_list 0 entries": (
    "Bagel",
    {"image_list": ["images/0.png"], "instruction_list": []},
  ),
  "instruction_list must be a list": ("Bagel", {"instruction_list": "a"}),
  "no picture: image_list is empty": ("Bagel", {"image_list": []}),
  "input_image[1]: there is no file gone.png": ("ShareGPT-4o-Image", {"input_image": ["images/0.png", "gone.png"]}),
  "no picture: output_image is empty": ("OmniGen2", {"output_image": None}),
  "instruction has places for the pictures [1, 3], but there are 2": (
    "OmniGen2",
    {"instruction": "<|image_1|> <|image_3|>", "input_images": ["images/0.png"] * 2},
  ),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_row_says_its_file_line_and_column(tmp_path, reason):
  name, change = BAD[reason]
  good = line(tmp_path, name)
  found = read(as_lines(tmp_path, [good, {**good, **change}]))
  assert found[0].record and reason in problems(found)["0.jsonl:2"]


def test_a_row_without_a_column_names_it(tmp_path):
  good = line(tmp_path, "OmniEdit")
  found = read(as_lines(tmp_path, [good, {"src_img": "images/0.png"}, ["x"]]) + "/0.jsonl")
  assert problems(found) == {
    "0.jsonl:2": "there is no edited_img and no edited_prompt_list; it has src_img",
    "0.jsonl:3": "no JSON object, but a list",
  }


def test_in_parquet_and_tars_a_bad_row_is_named_too(tmp_path):
  row = ROWS["OmniEdit"][0]
  bad = read(as_parquet(tmp_path / "parquet", [row, {**row, "edited_img": None}]))
  assert problems(bad) == {"0.parquet:1": "no picture: edited_img is empty"}
  row = {"input_image": ["0.png"], "input_prompt": "a", "output_image": "2.png"}
  members = [("a.0.png", BEFORE), ("a.json", json.dumps(row)), ("b.src.png", BEFORE), ("b.json", "{")]
  bad = problems(read(tar(tmp_path / "a.tar", members)))
  assert "no picture: output_image: the sample has no member 2.png; it has" in bad["a.tar/a"]
  assert "b.json is no JSON" in bad["a.tar/b"]


def test_a_cut_tar_gives_what_is_before_the_cut(tmp_path):
  path = as_tar(tmp_path, [ROWS["OmniEdit"][0]] * 4)
  content = Path(path).read_bytes()
  write(tmp_path, {"0.tar": content[: len(content) // 2]})
  found = read(path)
  assert found[0].record and "truncated" in problems(found)["0.tar"]


def test_a_shard_that_cannot_be_read_is_a_row_wherever_it_stands(tmp_path):
  as_tar(tmp_path, [ROWS["OmniEdit"][0]])
  write(tmp_path, {"00.tar": b"no tar" * 100, "z.tar": b""})
  found = problems(read(tmp_path, "edits"))
  assert list(found) == ["00.tar", "z.tar"] and all("truncated" in problem for problem in found.values())


def test_pictures_of_omnigen_stand_where_its_words_say(tmp_path):
  row = ROWS["OmniGen2"][0]
  rows = [
    {**row, "instruction": "The dog of <img><|image_2|></img> on <|image_1|>.", "input_images": [BEFORE, AFTER]},
    {**row, "instruction": "a <|image_1|> sign", "input_images": []},
    {"task_type": "t2i", "instruction": "a dog", "input_images": None, "output_image": LAST},
  ]
  found = read(as_parquet(tmp_path / "set", rows))
  assert said(found[0]) == [("user", ["The dog of", "<0>", "on", "<1>", "."]), ("assistant", ["<2>"])]
  assert found[0].record.images == (AFTER, BEFORE, AFTER)
  assert said(found[1])[0] == ("user", ["a <|image_1|> sign"])
  assert said(found[2]) == [("user", ["a dog"]), ("assistant", ["<0>"])]


def test_a_picture_that_a_row_may_lack_is_shown_where_it_has_one(tmp_path):
  row = ROWS["AnyEdit"][0]
  rows = [{**row, "visual_input": LAST}, {**row, "visual_input": None}, {**row, "visual_input": b""}]
  found = read(as_parquet(tmp_path / "set", rows))
  assert said(found[0]) == [("user", ["<0>", "<1>", "make it red"]), ("assistant", ["<2>"])]
  assert found[0].record.images == (BEFORE, LAST, AFTER) and said(found[1]) == said(found[2]) == EDIT


def test_texts_with_such_columns_are_not_taken_for_edits(tmp_path):
  alpaca = {"instruction": "Add.", "input": "1 and 2", "output": "3", "text": "Add. 1 and 2: 3"}
  assert open_format(as_lines(tmp_path, [alpaca]), None, Given())[0] == "text"


def test_a_column_that_is_asked_for_makes_them_captioned_pictures(tmp_path):
  row = {**ROWS["InstructPix2Pix"][0], "edited_prompt": "a red cat"}
  path = as_parquet(tmp_path / "set", [row])
  given = dict(image_column="edited_image", caption_columns=["edited_prompt"])
  assert open_format(path, None, Given(**given))[0] == "parquet"
  assert said(read(path, **given)[0]) == [("user", ["a red cat"]), ("assistant", ["<0>"])]


def test_splits_pictures_elsewhere_and_unknown_columns(tmp_path):
  row = {"src_img": "0.png", "edited_img": "0.png", "edited_prompt_list": ["a"], "split": "test"}
  write(tmp_path, {"images/0.png": BEFORE})
  as_lines(tmp_path / "lists", [row])
  found = read(tmp_path / "images", "edits", metadata="../lists/0.jsonl", split_column="split")
  assert found[0].record and found[0].split == "test"
  with pytest.raises(UserError, match=r"0.jsonl has no 'fold'; it has edited_img.*--split_column=NAME"):
    read(tmp_path / "lists", "edits", split_column="fold")
  with pytest.raises(UserError, match=r"no known set of edits; it has a; name them as one of Bagel: image_list, instr"):
    read(as_lines(tmp_path / "others", [{"a": 1}]), "edits")


def test_a_table_that_cannot_be_read_is_a_row_and_all_of_them_an_error(tmp_path):
  as_parquet(tmp_path / "set", [ROWS["OmniEdit"][0]])
  write(tmp_path / "set", {"1.parquet": "PAR1"})
  found = read(tmp_path / "set", "edits")
  assert found[0].record and "cut short" in problems(found)["1.parquet"]
  with pytest.raises(UserError, match=r"no file of .* can be read: .*cut short"):
    read(tmp_path / "set/1.parquet", "edits")
