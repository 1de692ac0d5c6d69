import json

import pytest

from omniimage.data.formats import FORMATS, open_format
from omniimage.data.formats.format import Given
from omniimage.errors import UserError
from tests.data.formats.made import picture, tar, write

CHAT = json.dumps({"image": "images/a.png", "conversations": [{"from": "gpt", "value": "<image>"}]})
EDIT = json.dumps({"input_images": ["images/a.png"], "instruction": "a", "output_image": "images/a.png"})
SOURCES = {
  "folder": {"a.png": picture(), "metadata.csv": "file_name,text\na.png,a\n", "README.txt": "read me"},
  "conversations": {"images/a.png": picture(), "chat.jsonl": CHAT},
  "edits": {"images/a.png": picture(), "edits.jsonl": EDIT},
  "text": {"a.txt": "a", "LICENSE": "free"},
}


@pytest.mark.parametrize("name", SOURCES)
def test_the_format_is_guessed_from_the_files(tmp_path, name):
  source = write(tmp_path, SOURCES[name])
  assert open_format(source, None, Given())[0] == name


def test_a_file_alone_is_a_source_too(tmp_path):
  write(tmp_path, {"a.png": picture(), "metadata.jsonl": '{"file_name": "a.png", "text": "a"}'})
  write(tmp_path, {"chat/chat.jsonl": json.dumps({"messages": [{"role": "assistant", "content": "a"}]})})
  assert open_format(str(tmp_path / "metadata.jsonl"), None, Given())[0] == "folder"
  assert open_format(str(tmp_path / "chat/chat.jsonl"), None, Given())[0] == "conversations"


def test_a_relative_file_is_a_source_too(tmp_path, monkeypatch):
  write(tmp_path, {"a.png": picture(), "metadata.jsonl": '{"file_name": "a.png", "text": "a"}'})
  monkeypatch.chdir(tmp_path)
  assert open_format("metadata.jsonl", None, Given())[0] == "folder"
  assert open_format(".", None, Given())[0] == "folder"


def test_a_list_of_addresses_is_not_taken_for_texts(tmp_path):
  source = write(tmp_path, {"cc3m.tsv": "caption\turl\na cat\thttp://example.org/cat.jpg\n"})
  with pytest.raises(UserError, match=r"cc3m.tsv has addresses.*img2dataset"):
    open_format(source, None, Given())


def test_what_looks_like_two_formats_is_asked_about(tmp_path):
  write(tmp_path, SOURCES["folder"])
  tar(tmp_path / "a.tar", [("a.png", picture()), ("a.txt", "a")])
  with pytest.raises(UserError, match=r"looks like folder and webdataset: .*\*.png.*--format=folder\|webdataset"):
    open_format(str(tmp_path), None, Given())
  assert open_format(str(tmp_path), "webdataset", Given())[0] == "webdataset"


@pytest.mark.parametrize("files", [{}, {"a.doc": "x"}, {"LICENSE": "x"}, {"a.json": "[]"}, {"a.jsonl": '{"x": 1}'}])
def test_what_looks_like_no_format_says_what_was_found(tmp_path, files):
  source = write(tmp_path, files)
  with pytest.raises(UserError, match=r"looks like no format: .*--format=folder\|webdataset\|parquet"):
    open_format(source, None, Given())


def test_one_long_json_list_is_to_be_written_as_lines(tmp_path):
  source = write(tmp_path, {"edits.json": f"[{EDIT}]", "README.md": "read me"})
  with pytest.raises(UserError, match=r"looks like no format: .*jq -c '.\[\]' FILE.json > FILE.jsonl"):
    open_format(source, None, Given())


def test_a_source_that_is_not_there_says_what_to_give(tmp_path):
  for source in (str(tmp_path / "nowhere"), "scene", "tfds"):
    with pytest.raises(UserError, match=r"is not there; give a folder"):
      open_format(source, None, Given())


@pytest.mark.parametrize("name", FORMATS)
def test_no_format_has_a_traceback_for_a_source_of_another(tmp_path, name):
  write(tmp_path, {"dir/a.doc": "x", "a.png": picture(), "nothing": ""})
  for source in ("dir", "a.png", "nothing", "absent", "absent-*.x", "absent-{00..02}.x"):
    if name not in ("scenes", "emoji"):
      with pytest.raises(UserError) as error:
        open_format(str(tmp_path / source), name, Given())
      assert "\n" not in str(error.value)


def test_a_folder_named_like_a_built_in_source_is_asked_about(tmp_path, monkeypatch):
  write(tmp_path, {"emoji/a.png": picture(), "emoji/a.txt": "a"})
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=r"looks like folder and emoji"):
    open_format("emoji", None, Given())
  assert open_format("./emoji", None, Given())[0] == "folder"


def test_an_unknown_format_a_prepared_set_and_a_stray_flag_are_refused(tmp_path):
  source = write(tmp_path, SOURCES["folder"])
  with pytest.raises(UserError, match=r"--format=tar is none of folder, webdataset"):
    open_format(source, "tar", Given())
  with pytest.raises(UserError, match=r"--map means nothing to .* read as folder"):
    open_format(source, None, Given(mapping={"image": "user"}))
  with pytest.raises(UserError, match=r"--caption_column means nothing to emoji"):
    open_format("emoji", None, Given(caption_columns=["text"]))
  write(tmp_path, {"dataset.json": "{}", "features.json": "{}"})
  with pytest.raises(UserError, match=r"prepared data set already"):
    open_format(source, None, Given())
