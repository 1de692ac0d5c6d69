"""The list of the records that a run could not use, `bad_records.jsonl` in its workdir: each once, with the reason."""

from pathlib import Path

from omniimage import strict_json


class BadRecords:
  """Appends lines {"key": …, "record": …, "reason": …}: where its owner finds the record, its index, and what is wrong
  with it. There is no file before there is a line."""

  def __init__(self, path: Path):
    self._path = path
    self._listed = {entry.get("key") for entry in strict_json.read_lines(path)}

  def add(self, key: str, record: int, reason: str):
    if key not in self._listed:
      self._listed.add(key)
      strict_json.append_line(self._path, {"key": key, "record": record, "reason": reason})
