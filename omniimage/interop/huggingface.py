"""Open language models in the form that Hugging Face's `transformers` reads and writes: a folder with config.json,
tokenizer.json and safetensors files. The prior begins with one, and is written back as one.

What the model knows keeps its ids: text comes first in the vocabulary. Rows for our specials and image codes are fresh,
around the mean of the model's own; only `<eos>` begins as the token that ended the model's texts.

Axes: V ids of a table, D width.
"""

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array

from omniimage.errors import UserError
from omniimage.files import write_whole
from omniimage.interop import families
from omniimage.interop.safetensors_files import FLOATS, SafeTensors, library, read_json, write, write_json
from omniimage.interop.tensors import Tensor, layers_of, tensors
from omniimage.paths import absolute
from omniimage.settings import PriorSettings
from omniimage.vocabulary import Vocabulary

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
HEAD = "lm_head.weight"
TABLES = {"embed/text": ("embed", 0), "head/text": ("head", 1)}  # whose axis is that of ids
SPECIALS_SPREAD = 0.1  # of fresh rows of specials, as a share of that of the model's own
OF_IMAGES = ("adapter/", "grid/")  # parameters that no language model has
COMPUTED = ".rotary_emb.inv_freq"  # in files of old versions, follows from config.json
DTYPES = ("float32", "bfloat16", "float16")


class LanguageModel:
  """A model's folder. All that can be wrong with it is a UserError of one line, which names the file or tensor."""

  def __init__(self, folder: str | Path):
    self.folder = absolute(folder)
    if not self.folder.is_dir():
      raise UserError(f"{self.folder} is not a folder; give that of a model in Hugging Face's form, as in hf:FOLDER")
    self.described = read_json(self.folder / CONFIG)
    families.family_of(self.described, str(self.folder / CONFIG))  # before its weights are missed
    self.files = SafeTensors(self.folder)

  @property
  def tokenizer(self) -> Path:
    return self.folder / TOKENIZER

  @functools.cached_property
  def tied(self) -> bool:
    """Some models keep a head in their files that they do not use."""
    return bool(self.described.get("tie_word_embeddings", HEAD not in self.files.names))

  def settings(self) -> dict[str, Any]:
    """The prior's settings that a language model has."""
    return families.prior_settings(self.described, self.tied, str(self.folder / CONFIG))

  def tensors(self, s: PriorSettings) -> dict[str, Tensor]:
    """Those that the settings ask for, by the path of the prior's parameter."""
    return tensors(s, self.rows)

  @property
  def rows(self) -> int:
    """Of its table, padding included."""
    rows = self.described.get("vocab_size")
    return rows if type(rows) is int else 0

  def eos(self, text_size: int) -> int | None:
    """The id that ends its texts; of several, the first."""
    given = self.described.get("eos_token_id")
    found = [i for i in (given if isinstance(given, list) else [given]) if type(i) is int and 0 <= i < text_size]
    return found[0] if found else None

  def check(self, s: PriorSettings, vocabulary: Vocabulary):
    """UserError unless its tensors are those of the settings. Reads headers only."""
    different = {name: value for name, value in self.settings().items() if getattr(s, name) != value}
    for name, value in different.items():
      raise UserError(f"prior.{name}={getattr(s, name)!r}, and the model of {self.folder} has {value!r}")
    expected = {}
    for path, tensor in self.tensors(s).items():
      expected |= {tensor.name.format(layer): tensor.theirs for layer in layers_of(path, s.depth)}
    for name, shape in expected.items():
      if name not in self.files.names:
        raise UserError(f"{self.folder} has no tensor {name} {shape}, which its {CONFIG} makes us expect")
      if self.files.shape(name) != shape:
        raise UserError(f"{self.folder}: the tensor {name} is {self.files.shape(name)}; its {CONFIG} says {shape}")
      if self.files.dtype(name) not in FLOATS:
        raise UserError(f"{self.folder}: the tensor {name} is {self.files.dtype(name)}; expected {', '.join(FLOATS)}")
    known = {*expected, *([HEAD] if self.tied else [])}
    if unknown := [name for name in self.files.names if name not in known and not name.endswith(COMPUTED)]:
      raise UserError(f"{self.folder}: the tensor {unknown[0]} is of something the prior does not have")
    if vocabulary.text_size > self.rows:
      raise UserError(
        f"{self.folder}: its table has {self.rows} rows, and the text vocabulary {vocabulary.text_size} ids; set "
        f"data.vocabulary to the model's own, {self.tokenizer}"
      )

  def load(self, fresh: Mapping[str, Any], s: PriorSettings, vocabulary: Vocabulary) -> dict[str, Any]:
    """The prior's parameters, where and as large as `fresh` ones, which are used up. One tensor of the files is in
    memory at a time, and of a stack of layers what this host's devices hold."""
    leaves = flatten_dict(fresh, sep="/")
    found = {path: leaf for path, leaf in leaves.items() if path.startswith(OF_IMAGES)}
    for path, tensor in self.tensors(s).items():
      pieces = (tensor.read(self.files.read(tensor.name.format(i))) for i in layers_of(path, s.depth))
      if path in TABLES:
        table, axis = TABLES[path]
        rows = _fitted(next(pieces), leaves[path].shape, axis, vocabulary.text_size)
        loaded = placed(leaves[path], [rows], stacked=False)
        ends = (vocabulary.eos, self.eos(vocabulary.text_size))
        pair = _with_fresh(leaves[path], leaves[f"{table}/image"], loaded, axis, vocabulary.text_size, *ends)
        found |= dict(zip((path, f"{table}/image"), pair))
      else:
        found[path] = placed(leaves[path], pieces, stacked=path.startswith("layers/"))
    return unflatten_dict(found, sep="/")


def placed(like: Array, pieces: Iterable[np.ndarray], stacked: bool) -> Array:
  """An array like another, on the same devices: of its slices along the first axis, or of the one piece that it is."""
  indices = {str(i): i for i in like.sharding.addressable_devices_indices_map(like.shape).values()}
  shards = {name: np.empty(like.sharding.shard_shape(like.shape), like.dtype) for name in indices}
  for number, piece in enumerate(pieces):
    for name, index in indices.items():
      if stacked:
        shards[name][number] = piece[index[1:]]
      else:
        shards[name][...] = piece[index]
  return jax.make_array_from_callback(like.shape, like.sharding, lambda index: shards[str(index)])


def _fitted(rows: np.ndarray, shape: tuple[int, ...], axis: int, text_size: int) -> np.ndarray:
  """The first `text_size` rows of a table, zeros behind them, in a shape."""
  fitted = np.zeros(shape, rows.dtype)
  own = (slice(None),) * axis + (slice(text_size),)
  fitted[own] = rows[own]
  return fitted


def _with_fresh(text: Array, image: Array, loaded: Array, axis: int, text_size: int, eos: int, their_eos: int | None):
  """A model's table, `loaded`, with fresh rows behind it, and that of image codes.

  Fresh rows lie around the mean of the model's own (Hewitt 2021): their logits are about the average of all, so that
  none is likely before it has been trained. Specials, which compete with text, lie close; codes as wide as text.
  """

  @functools.partial(jax.jit, donate_argnums=(0, 1), out_shardings=(text.sharding, image.sharding))
  def join(text, image, loaded):
    rows, text, image = (jnp.moveaxis(x, axis, 0) for x in (loaded, text, image))
    is_text = jnp.arange(len(rows))[:, None] < text_size
    mean = jnp.sum(rows, axis=0) / text_size
    spread = jnp.sqrt(jnp.sum(jnp.square(rows - mean) * is_text) / (text_size * mean.size))
    text, image = (x * (spread / jnp.sqrt(jnp.mean(jnp.square(x)))) for x in (text, image))
    rows = jnp.where(is_text, rows, mean + SPECIALS_SPREAD * text)
    if their_eos is not None:
      rows = rows.at[eos].set(rows[their_eos])
    return jnp.moveaxis(rows, 0, axis), jnp.moveaxis(mean + image, 0, axis)

  return join(text, image, loaded)


def export(
  params: Mapping[str, Any],
  s: PriorSettings,
  vocabulary: Vocabulary,
  positions: int,
  tokenizer: bytes,
  out: Path,
  dtype: str = "float32",
):
  """Writes the prior's language part, text and specials, as a folder that `transformers` loads.

  Args:
    params: of the prior, stacked.
    positions: the longest text it is meant for.
    tokenizer: the content of its tokenizer.json.
    out: a folder that is empty, or not there yet.
    dtype: of the tensors, one of DTYPES.
  """
  rows = vocabulary.text_and_specials
  described = families.description(s, rows, vocabulary.eos, positions, dtype)
  require_new(out)
  leaves, origin = flatten_dict(params, sep="/"), {}
  for path, tensor in tensors(s, rows).items():
    origin |= {tensor.name.format(layer): (path, tensor, layer) for layer in layers_of(path, s.depth)}

  def value(name: str) -> np.ndarray:
    path, tensor, layer = origin[name]
    leaf = leaves[path] if layer is None else leaves[path][layer]
    if path in TABLES:
      leaf = leaf[(slice(None),) * TABLES[path][1] + (slice(rows),)]
    return tensor.written(np.asarray(leaf))

  out.mkdir(parents=True, exist_ok=True)
  write(out, {name: tensor.theirs for name, (_, tensor, _) in origin.items()}, value, np.dtype(dtype))
  write_whole(out / TOKENIZER, tokenizer)
  write_json(out / CONFIG, described)  # last: a folder without it is no model


def require_new(out: Path):
  """UserError unless a model could be written to this folder: empty, or not there yet."""
  library()
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise UserError(f"{out} is there already; give the name of a folder that is to be made")
