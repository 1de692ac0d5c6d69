"""The index of the arrays that Orbax has written: an OCDBT database of Zarr arrays, read through TensorStore."""

from collections.abc import Iterable

import tensorstore
from etils import epath

from omniimage.buckets import is_remote, kvstore
from omniimage.manifests import some


def unreadable(place: epath.Path, arrays: Iterable[str]) -> str:
  """What is missing of these arrays, by path, in words; empty if the index names values of all. Reads no array."""
  base = kvstore(place) if is_remote(place) else {"driver": "file", "path": f"{place}/"}
  index = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
  names = {key.decode() for key in index.list().result()}
  described = {name.removesuffix("/zarr.json") for name in names if name.endswith("/zarr.json")}
  with_values = {name.partition("/c/")[0] for name in names if not name.endswith("/zarr.json")}
  with_values |= {name.removesuffix("/c") for name in names if name.endswith("/c")}  # of an array without axes
  missing = [path for path in arrays if path not in described & with_values]
  return f"the index of what was written lacks {some(missing)}" if missing else ""
