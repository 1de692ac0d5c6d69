"""What lets TFDS read the shards too: `tfds.builder_from_directory(DIR).as_data_source()`."""

from collections.abc import Mapping
from pathlib import Path

from omniimage.data.prepared import Split
from omniimage.files import flush
from omniimage.paths import writing


def write(out: Path, name: str, splits: Mapping[str, Split], source: str, licence: str):
  """features.json and dataset_info.json."""
  import tensorflow_datasets as tfds
  from tensorflow_datasets.core import naming

  features = tfds.features.FeaturesDict({
    "key": tfds.features.Text(),
    "turns": tfds.features.Text(),
    "images": tfds.features.Sequence(tfds.features.Image()),
  })  # fmt: skip
  infos = [
    tfds.core.SplitInfo(
      name=split_name,
      shard_lengths=[shard.records for shard in split.shards],
      num_bytes=sum(shard.bytes for shard in split.shards),
      filename_template=naming.ShardedFileTemplate(
        data_dir=out, dataset_name=name, split=split_name, filetype_suffix="array_record"
      ),
    )
    for split_name, split in splits.items()
  ]
  with writing(out):
    tfds.folder_dataset.write_metadata(
      data_dir=out, features=features, split_infos=infos, version="1.0.0", check_data=False,
      description=f"Conversations with images, prepared from {source}", license=licence or None,
    )  # fmt: skip
    flush(out / "features.json", out / "dataset_info.json")
