"""Records that are larger than a row: a few are left out, many mean that the rows are too small."""

import numpy as np

from omniimage.data.record_stream import choose
from omniimage.settings import DataSettings, SettingsError

NEEDS = (("tokens", "sequence_length"), ("images", "images_per_row"))


def too_large(tokens: np.ndarray, images: np.ndarray, data: DataSettings) -> np.ndarray:
  """Indices of the records that a row cannot hold. SettingsError where they are all, or more than
  `data.max_bad_records`."""

  def beyond(some: slice) -> np.ndarray:
    return (tokens[some] > data.sequence_length) | (images[some] > data.images_per_row)

  if tokens.max() <= data.sequence_length and images.max() <= data.images_per_row:
    return np.empty(0, np.int64)
  found = choose(beyond, 0, len(tokens))
  if found.count == len(tokens) or found.count > data.max_bad_records * len(tokens):
    raise SettingsError(_advice(tokens, images, data))
  return found.listed


def why_too_large(tokens: int, images: int, data: DataSettings) -> str:
  """Of one of those records, in words."""
  needs = zip(NEEDS, (tokens, images))
  return " and ".join(
    f"{need} {name}, a row holds {getattr(data, key)} (data.{key})"
    for (name, key), need in needs
    if need > getattr(data, key)
  )


def _advice(tokens: np.ndarray, images: np.ndarray, data: DataSettings) -> str:
  needs = {name: (np.asarray(need), getattr(data, key), key) for (name, key), need in zip(NEEDS, (tokens, images))}
  name = max(needs, key=lambda name: np.mean(needs[name][0] > needs[name][1]))
  need, holds, key = needs[name]
  largest, share = int(np.argmax(need)), np.mean(need > holds)
  enough = int(np.quantile(need, 1 - data.max_bad_records, method="inverted_cdf"))
  less = f"; {enough} would hold enough of them" if holds < enough < need[largest] else ""
  return (
    f"data.{key}={holds} is too small: record {largest} may have {need[largest]} {name}, and {100 * share:.3g} % of "
    f"the records have more than a row holds, where data.max_bad_records={data.max_bad_records:g} may be left out; set "
    f"data.{key} to {need[largest]} or more{less}"
  )
