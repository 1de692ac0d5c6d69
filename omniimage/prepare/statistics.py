"""What a data set is like, in numbers."""

from collections.abc import Mapping
from typing import Any

import numpy as np

PERCENTILES = (5, 50, 95)
SHAPES = {  # of pictures, by width / height, which is less than the number
  "taller than 1:2": 1 / 2,
  "1:2 to 4:5": 4 / 5,
  "about square": 5 / 4,
  "5:4 to 2:1": 2,
  "wider than 2:1": np.inf,
}


def of(rows: np.ndarray) -> dict[str, Any]:
  """`measures`: the mean, percentiles and most of each; `shapes`: how many records have a picture of each.

  Args:
    rows: records, whose fields are those of prepared.INDEX and `length`, in bytes.
  """
  pictures = rows[rows["height"] > 0]
  height, width = pictures["height"].astype(np.float64), pictures["width"].astype(np.float64)
  measured = {
    "bytes of a record": rows["length"],
    "text tokens": rows["text_tokens"],
    "images": rows["images"],
    "height, pixels": height,
    "width, pixels": width,
  }
  counts, _ = np.histogram(width / np.maximum(height, 1), [0, *SHAPES.values()])
  return {
    "measures": {name: _measure(values) for name, values in measured.items() if len(values)},
    "shapes": {name: int(count) for name, count in zip(SHAPES, counts) if count},
  }


def lines(description: Mapping[str, Any]) -> list[str]:
  """For the terminal, of dataset.json."""
  splits = description["splits"].items()
  told = [
    f"{name}: {split['records']:,} records, {split['images']:,} images, "
    f"{sum(shard['bytes'] for shard in split['shards']) / 1e6:,.1f} MB in {len(split['shards']):,} shards"
    for name, split in splits
  ]
  for name, values in description["statistics"]["measures"].items():
    told.append(f"{name}: mean {values['mean']:,.0f}, median {values['50 %']:,.0f}, most {values['most']:,.0f}")
  shapes = [f"{count:,} {name}" for name, count in description["statistics"]["shapes"].items()]
  return told + ([f"pictures: {', '.join(shapes)}"] if shapes else [])


def _measure(values: np.ndarray) -> dict[str, float]:
  percentiles = np.percentile(values, PERCENTILES)
  return {
    "mean": round(float(values.mean()), 2),
    **{f"{p} %": float(value) for p, value in zip(PERCENTILES, percentiles)},
    "most": float(values.max()),
  }
