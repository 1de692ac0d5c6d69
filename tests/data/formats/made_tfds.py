"""TFDS data sets that the tests of formats make."""

from pathlib import Path

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.core import naming


def make(root: Path, name: str, features: dict, examples: dict[str, list[dict]]) -> str:
  """A data set as TFDS keeps it, its splits as given; the directory of its version."""
  directory = root / name / "1.0.0"
  directory.mkdir(parents=True)
  features = tfds.features.FeaturesDict(features)
  template = naming.ShardedFileTemplate(data_dir=directory, dataset_name=name, filetype_suffix="array_record")
  splits = []
  for split, rows in examples.items():
    info = tfds.core.SplitInfo(
      name=split, shard_lengths=[len(rows)], num_bytes=0, filename_template=template.replace(split=split)
    )
    writer = ArrayRecordWriter(str(directory / info.filenames.pop()), "group_size:1")
    for row in rows:
      writer.write(features.serialize_example(features.encode_example(row)))
    writer.close()
    splits.append(info)
  tfds.folder_dataset.write_metadata(
    data_dir=str(directory), features=features, split_infos=splits, version="1.0.0", check_data=False
  )
  return str(directory)
