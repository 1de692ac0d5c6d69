"""A prepared folder of any records, also of such as launch.prepare would leave out, written at once."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image

from omniimage.data.images import BadImage, inspect
from omniimage.data.prepared import FORMAT, INDEX, Prepared, count_tokens, sha256
from omniimage.data.records import Record, Text, to_bytes, turn_tokens
from omniimage.data.text import TextTokenizer


def picture(color=(230, 0, 0), width=16, height=16, format="PNG", **options) -> bytes:
  """All of one color."""
  file = io.BytesIO()
  Image.new("RGB", (width, height), color).save(file, format, **options)
  return file.getvalue()


def write(path: Path, splits: Mapping[str, Sequence[Record]], shard_records: int = 7) -> Prepared:
  """Of pictures that cannot be read the index says 9×9."""
  path.mkdir()
  text_tokenizer = TextTokenizer.load()
  described = {split: _split(path, split, records, shard_records, text_tokenizer) for split, records in splits.items()}
  told = {"format": FORMAT, "vocabulary": text_tokenizer.fingerprint, "splits": described}
  (path / "dataset.json").write_text(json.dumps(told))
  return Prepared.open(path)


def _split(path: Path, split: str, records: Sequence[Record], shard_records: int, text_tokenizer) -> dict:
  shards = []
  for start in range(0, len(records), shard_records):
    own, file = records[start : start + shard_records], path / f"{split}-{start}.array_record"
    writer = ArrayRecordWriter(str(file), "group_size:1,uncompressed")
    for record in own:
      writer.write(to_bytes(record))
    writer.close()
    shards.append({"file": file.name, "records": len(own), "bytes": file.stat().st_size, "sha256": sha256(file)})
  index = path / f"index-{split}.npy"
  np.save(index, np.array([_row(record, text_tokenizer) for record in records], INDEX))
  images = sum(len(record.images) for record in records)
  return {
    "records": len(records),
    "images": images,
    "shards": shards,
    "index": {"file": index.name, "sha256": sha256(index)},
  }


def _row(record: Record, text_tokenizer) -> tuple:
  texts = [part.texts for turn in record.turns for part in turn.content if isinstance(part, Text)]
  size = (0, 0)
  if record.images:
    try:
      found = inspect(record.images[-1])
      size = found.height, found.width
    except BadImage:
      size = 9, 9
  bytes_ = sum(max(len(text.encode("utf-8", "replace")) for text in alternatives) for alternatives in texts)
  return count_tokens(record.turns, text_tokenizer), bytes_, len(record.images), *size, turn_tokens(record.turns)
