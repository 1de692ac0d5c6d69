"""The same pictures as WebDataset, Parquet and TFDS data set: prepared, they are the same records and batches.

python -m launch.prepare --source=PICTURES --out=DIR
python -m benchmarks.same_records --prepared=DIR
"""

import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from absl import app, flags

from configs import images
from omniimage.data.batches import Batches
from omniimage.data.prepared import Prepared
from omniimage.data.records import Record
from omniimage.data.sources import open_source
from omniimage.data.text import TextTokenizer
from omniimage.prepare.prepare import Request, prepare
from omniimage.settings import from_config
from omniimage.systems import open_system

PREPARED = flags.DEFINE_string("prepared", None, "a folder of captioned pictures that launch.prepare has made")
BATCHES = flags.DEFINE_integer("batches", 20, "that are compared", lower_bound=1)
Splits = dict[str, list[Record]]


def main(_):
  first = Path(PREPARED.value).absolute()
  with tempfile.TemporaryDirectory() as folder:
    for name, (records, batches) in compare(first, Path(folder), BATCHES.value).items():
      print(f"{name}: {records:,} records and {batches} batches are the same")


def compare(first: Path, folder: Path, batches: int) -> dict[str, tuple[int, int]]:
  """(records, batches) that are the same, of each form. ValueError names what is not."""
  splits, found = read(first), {}
  digests = digests_of(first, batches)
  for name, write in FORMS.items():
    source, out = folder / name, folder / f"{name}_prepared"
    source.mkdir()
    write(splits, source)
    prepare(Request(str(source), out), say=lambda line: None)
    for split, records in read(out).items():
      if [(r.turns, r.images) for r in records] != [(r.turns, r.images) for r in splits[split]]:
        raise ValueError(f"{name}: the records of {split} are others")
    if digests_of(out, batches) != digests:
      raise ValueError(f"{name}: the batches are others")
    found[name] = sum(map(len, splits.values())), batches
  return found


def read(path: Path) -> Splits:
  prepared = Prepared.open(path)
  return {name: [prepared.read(name, i) for i in range(split.records)] for name, split in prepared.splits.items()}


def digests_of(path: Path, batches: int) -> list[str]:
  """Of the first batches of a folder, all their arrays."""
  config = images.get_config("tiny")
  config.data.source.path = str(path)
  settings, text_tokenizer = from_config(config), TextTokenizer.load()
  vocabulary = open_system(settings, text_tokenizer.size).vocabulary
  source = open_source(settings.data, "train", settings.buckets, text_tokenizer, vocabulary)
  made = Batches(source, settings.data, vocabulary, text_tokenizer, settings.buckets, settings.seed)
  found = [made.batch(index, rows=8) for index in range(batches)]
  return [hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in batch.values())).hexdigest() for batch in found]


def captions_of(record: Record) -> list[str]:
  return list(record.turns[0].content[0].texts)


def suffix_of(image: bytes) -> str:
  return {b"\xff\xd8": "jpg", b"\x89P": "png", b"RI": "webp"}[image[:2]]


def write_webdataset(splits: Splits, folder: Path):
  for split, records in splits.items():
    with tarfile.open(folder / f"{split}-000000.tar", "w") as tar:
      for i, record in enumerate(records):
        captions = json.dumps({"text": captions_of(record)}).encode()
        for suffix, content in ((suffix_of(record.images[0]), record.images[0]), ("json", captions)):
          member = tarfile.TarInfo(f"{i:06d}.{suffix}")
          member.size = len(content)
          tar.addfile(member, io.BytesIO(content))


def write_parquet(splits: Splits, folder: Path):
  import pyarrow as pa
  import pyarrow.parquet as pq

  for split, records in splits.items():
    pictures = [{"bytes": record.images[0], "path": f"{i}"} for i, record in enumerate(records)]
    table = pa.table({"image": pictures, "text": [captions_of(record) for record in records]})
    pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def write_tfds(splits: Splits, folder: Path):
  import tensorflow_datasets as tfds
  from array_record.python.array_record_module import ArrayRecordWriter
  from tensorflow_datasets.proto import tf_example_generated_pb2 as tf_example

  infos = []
  for split, records in splits.items():
    writer = ArrayRecordWriter(str(folder / f"pictures-{split}.array_record-00000-of-00001"), "group_size:1")
    for record in records:
      example = tf_example.Example()
      example.features.feature["image"].bytes_list.value.append(record.images[0])
      example.features.feature["captions"].bytes_list.value.extend(text.encode() for text in captions_of(record))
      writer.write(example.SerializeToString())
    writer.close()
    template = tfds.core.ShardedFileTemplate(
      data_dir=folder, dataset_name="pictures", split=split, filetype_suffix="array_record"
    )
    infos.append(tfds.core.SplitInfo(split, [len(records)], 0, filename_template=template))
  features = tfds.features.FeaturesDict(
    {"image": tfds.features.Image(), "captions": tfds.features.Sequence(tfds.features.Text())}
  )
  tfds.folder_dataset.write_metadata(data_dir=folder, features=features, split_infos=infos, check_data=False)


FORMS: dict[str, Callable[[Splits, Path], None]] = {
  "webdataset": write_webdataset,
  "parquet": write_parquet,
  "tfds": write_tfds,
}


if __name__ == "__main__":
  flags.mark_flag_as_required("prepared")
  app.run(main)
