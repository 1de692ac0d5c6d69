"""Codes that were made once: of the same records in the same order, by a tokenizer that is known again, and whatever
stops their making, the same command goes on."""

import dataclasses
import json
import pickle
import re
import shutil

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from omniimage.data import codes
from omniimage.data.batches import Batches
from omniimage.data.images import decode
from omniimage.data.prepared import Prepared
from omniimage.data.records import BadRecord
from omniimage.data.sources import open_codes, open_source
from omniimage.errors import UserError
from omniimage.prepare import tokenize as module
from omniimage.prepare.tokenize import CodesWriter, Request, tokenize
from omniimage.settings import from_config
from omniimage.training import loop
from omniimage.training.coded import Coded, fingerprint
from omniimage.training.samples import SampleSheets
from omniimage.training.state import fresh_state
from omniimage.workdir import load_run
from tests import small
from tests.prepare import fake_format

UNITS = {
  "a": [*fake_format.rows(0, 20, split="train"), {"text": "a text", "split": "train"}],
  "b": [
    {"seed": 90, "caption": ["wide", "a wide one"], "size": (30, 12), "split": "train"},
    *fake_format.rows(30, 5, split="test"),
  ],
}
STEPS = {f"stages.{name}.steps": 2 for name in ("tokenizer", "prior")}


def config(path, **changes) -> ConfigDict:
  source = ConfigDict(dict(name="records", path=str(path), templates=("{}",), fit="crop", background=(255, 255, 255)))
  tiny = {"data.source": source, "schedule": ("tokenizer",), "optimizer.muon_rms": 0.0, **small.SHALLOW, **STEPS}
  return small.config(**(tiny | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
  """A prepared data set, and a run that has trained its tokenizer on it."""
  folder = tmp_path_factory.mktemp("made")
  prepared = fake_format.prepared(folder, UNITS, held_out=0.0)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(SampleSheets, "write", lambda *_: None)
    loop.train(config(prepared.path), folder / "run")
  return prepared, folder / "run"


@pytest.fixture
def said():
  return []


@pytest.fixture
def request_of(made, tmp_path):
  prepared, run = made

  def request(**changes) -> Request:
    return Request(**{"source": prepared.path, "workdir": run, "out": tmp_path / "codes", **changes})

  return request


def batches(settings, coded=None) -> Batches:
  system, text = small.system(settings), small.text_tokenizer()
  source = coded or open_source(settings.data, "train", settings.buckets, text, system.vocabulary)
  return Batches(source, settings.data, system.vocabulary, text, settings.buckets, 0, coded=coded is not None)


@pytest.fixture(scope="module")
def encoded(made, tmp_path_factory):
  """The codes of that data set, whole."""
  prepared, run = made
  return tokenize(Request(prepared.path, run, tmp_path_factory.mktemp("encoded") / "codes"), lambda line: None)


def coded_source(settings, folder: Prepared):
  vocabulary = small.system(settings).vocabulary
  stored = codes.StoredCodes.open(folder.path)
  return open_codes(stored, settings.data, "train", settings.buckets, small.text_tokenizer(), vocabulary)


def test_batches_of_codes_are_those_of_the_images_record_for_record(made, encoded):
  prepared, run = made
  settings = from_config(config(prepared.path))
  images, coded = batches(settings), batches(settings, coded_source(settings, encoded))
  encode, params = jax.jit(small.system(settings).encode), load_run(run).params
  for index in range(3):
    of_images, of_codes = images.batch(index, 8), coded.batch(index, 8)
    expected = encode(params, of_images.pop("images")) * of_images["image_mask"][..., None, None]
    np.testing.assert_array_equal(of_codes.pop("codes"), expected)
    assert set(of_codes) == set(of_images)
    for name, values in of_codes.items():
      np.testing.assert_array_equal(values, of_images[name])
    assert images.record_ids(index, 8) == coded.record_ids(index, 8)


def test_in_a_run_of_several_sizes_codes_are_of_the_size_of_their_record(made, request_of, said, monkeypatch):
  prepared, run = made
  settings, trained = from_config(config(prepared.path, **{"data.aspect_ratios": ("1:1", "3:1")})), load_run(run)
  monkeypatch.setattr(module, "load_run", lambda workdir: dataclasses.replace(trained, settings=settings))
  folder = tokenize(request_of(), said.append)
  images, coded = batches(settings), batches(settings, coded_source(settings, folder))
  encode, shapes = jax.jit(small.system(settings).encode), set()
  for index in (next(i for i in range(2000) if images.size_of(i) == size) for size in settings.buckets):
    of_images, of_codes = images.batch(index, 2), coded.batch(index, 2)
    expected = encode(trained.params, of_images["images"]) * of_images["image_mask"][..., None, None]
    np.testing.assert_array_equal(of_codes["codes"], expected)
    shapes.add(of_codes["codes"].shape[2:])
  assert shapes == {(size.rows, size.columns) for size in settings.buckets} and not coded.bad_records


def test_every_split_has_its_records_with_their_keys_and_words(made, encoded):
  prepared, _ = made
  for split, told in prepared.splits.items():
    for i in range(told.records):
      record, image = encoded.read(split, i), prepared.read(split, i)
      assert (record.key, record.turns) == (image.key, image.turns)
      assert all(codes.from_bytes(stored).shape == (1, 2, 2) for stored in record.images)
  encoded.verify()


def test_worker_processes_get_a_copy_that_reads_the_same(made, encoded):
  settings = from_config(config(made[0].path))
  coded = batches(settings, coded_source(settings, encoded))
  _, copied, _ = pickle.loads(pickle.dumps(coded._reader)).read(1, 8)
  jax.tree.map(np.testing.assert_array_equal, copied, coded.batch(1, 8))


def test_a_run_goes_on_from_codes_as_it_would_from_images(made, encoded, tmp_path, monkeypatch):
  monkeypatch.setattr(SampleSheets, "write", lambda *_: None)
  prepared, run = made
  after = []
  for name, folder in (("images", ""), ("codes", str(encoded.path))):
    workdir = shutil.copytree(run, tmp_path / name)
    longer = config(prepared.path, **{"schedule": ("tokenizer", "prior"), "data.codes": folder})
    after.append(loop.train(longer, workdir).params)
  jax.tree.map(np.testing.assert_array_equal, *after)
  before, now = load_run(run).params, load_run(tmp_path / "codes").params
  assert fingerprint(before["prior"]) != fingerprint(now["prior"])
  assert fingerprint(before["tokenizer"]) == fingerprint(now["tokenizer"]), "codes of it fit as long as it stays"


def refused(act) -> str:
  with pytest.raises(UserError) as why:
    act()
  assert "\n" not in str(why.value)
  return str(why.value)


@pytest.mark.parametrize(
  "changes, said",
  [
    ({"data.source.fit": "stretch"}, "was made with other settings: data.source.fit crop there and stretch here; make"),
    ({"data.image_size": 32}, "other settings: sizes [[16, 16]] there and [[32, 32]] here"),
    ({"tokenizer.levels": (8, 5)}, "other settings: tokenizer {"),
  ],
)
def test_training_refuses_codes_of_other_settings(made, encoded, tmp_path, changes, said):
  longer = {"schedule": ("tokenizer", "prior"), "data.codes": str(encoded.path)}
  wrong = config(made[0].path, **(longer | changes))
  assert said in refused(lambda: loop.train(wrong, tmp_path))


def test_training_refuses_codes_that_its_tokenizer_has_not_made(made, encoded):
  longer = {"schedule": ("tokenizer", "prior", "joint", "prior"), "data.codes": str(encoded.path)}
  system = small.system(from_config(config(made[0].path, **longer)))
  coded, params = Coded.open(system, small.text_tokenizer()), load_run(made[1]).params
  at = fresh_state(params).replace
  coded.check(system, at(step=2))
  coded.check(system, at(step=3))
  coded.check(system, at(step=4 + system.settings.stages["joint"].steps + 2))  # all is done
  said = refused(lambda: coded.check(system, at(step=1)))
  assert "before a stage reads the codes, tokenizer changes the tokenizer that has made them; train up to the" in said
  assert "before a stage reads the codes, joint changes" in refused(lambda: coded.check(system, at(step=4)))
  moved = {**params, "tokenizer": jax.tree.map(lambda x: x + 1e-6, params["tokenizer"])}
  said = refused(lambda: coded.check(system, at(step=2, params=moved)))
  assert re.search(
    r"was made with another tokenizer, \w{8} there and \w{8} here; make codes with the tokenizer of", said
  )


def test_codes_that_no_stage_would_read_are_not_opened(made, caplog):
  system = small.system(from_config(config(made[0].path, **{"schedule": ("joint",), "data.codes": "/nowhere"})))
  assert Coded.open(system, small.text_tokenizer()) is None
  assert "data.codes='/nowhere' is not read: every stage of the schedule needs pixels" in caplog.text


def test_a_fingerprint_is_of_values_and_names_wherever_they_lie(made):
  params = load_run(made[1]).params["tokenizer"]
  mesh = jax.make_mesh((8,), ("data",))

  def spread_out(x):
    spec = PartitionSpec("data") if x.ndim == 1 and x.size % 8 == 0 else PartitionSpec()
    return jax.device_put(x, NamedSharding(mesh, spec))

  spread = jax.tree.map(spread_out, params)
  assert fingerprint(spread) == fingerprint(params) == fingerprint(jax.tree.map(np.asarray, params))
  assert fingerprint({"a": np.zeros(2)}) != fingerprint({"b": np.zeros(2)}) != fingerprint({"b": np.zeros((1, 2))})


def test_training_refuses_codes_of_other_records_and_what_is_no_codes(made, encoded, tmp_path):
  prepared, _ = made
  other = fake_format.prepared(tmp_path, {"a": fake_format.rows(7, 9)}, held_out=0.0)

  def train(path, folder, **changes):
    return lambda: loop.train(config(path, **{"schedule": ("prior",), "data.codes": str(folder), **changes}), tmp_path)

  assert "does not hold the codes of" in refused(train(other.path, encoded.path))
  assert "holds images, not codes; make those with python" in refused(train(prepared.path, prepared.path))
  assert "holds codes, not images: give it as data.codes" in refused(train(encoded.path, encoded.path))
  scenes = small.config(schedule=("prior",), **{"data.codes": str(encoded.path)})
  assert "codes are stored of a prepared data set" in refused(lambda: loop.train(scenes, tmp_path))


class Killed(BaseException):
  """Nothing catches it, as nothing does a kill."""


def test_what_was_begun_is_finished_by_the_same_command_and_not_made_again(request_of, encoded, said, monkeypatch):
  request, made = request_of(shard_records=8), []
  write = CodesWriter.records

  def dies(self, task):
    made.append(task.name)
    if len(made) == 3:
      raise Killed
    return write(self, task)

  monkeypatch.setattr(CodesWriter, "records", dies)
  with pytest.raises(Killed):
    tokenize(request, said.append)
  assert "is not finished; run the same launch.prepare again" in refused(lambda: Prepared.open(request.out))
  monkeypatch.undo()
  whole = tokenize(request, said.append)
  monkeypatch.setattr(CodesWriter, "records", lambda *_: pytest.fail("made again"))
  assert made[:2] == [shard.file for shard in whole.shards("train")][:2] and len(whole.shards("train")) == 3
  for split in encoded.splits:
    for i in range(encoded.splits[split].records):
      assert whole.read(split, i) == encoded.read(split, i)
  tokenize(request, said.append)
  assert "there is nothing to do" in said[-1]
  assert 'was made with --variants=["whole"], not ["flipped"]' in refused(
    lambda: tokenize(dataclasses.replace(request, variants=("flipped",)), said.append)
  )


def test_variants_are_codes_of_other_views_and_one_of_them_is_drawn_for_a_whole_record(request_of, encoded, made, said):
  prepared, run = made
  folder = tokenize(request_of(variants=("whole", "flipped", "part")), said.append)
  settings = from_config(config(prepared.path))
  encode, params = jax.jit(small.system(settings).encode), load_run(run).params
  for i in range(3):
    image = decode(prepared.read("train", i).images[0], settings.buckets[0], "crop", (255, 255, 255))
    whole, flipped, part = codes.from_bytes(folder.read("train", i).images[0])
    np.testing.assert_array_equal(whole, encode(params, image))
    np.testing.assert_array_equal(flipped, encode(params, image[:, ::-1]))
    assert part.shape == whole.shape and not np.array_equal(part, whole)
  source = coded_source(settings, folder)
  drawn = {source.record(0, np.random.default_rng(seed))[-1].image.tobytes() for seed in range(40)}
  assert len(drawn) == len({variant.tobytes() for variant in codes.from_bytes(folder.read("train", 0).images[0])})


def test_in_the_place_of_codes_that_cannot_be_made_is_the_reason(
  made, encoded, request_of, said, tmp_path, monkeypatch
):
  prepared, _ = made
  read = Prepared.read

  def rotten(self, split, index):
    record = read(self, split, index)
    if split == "train" and index == 4 and self.path == prepared.path:
      return dataclasses.replace(record, images=(b"no picture",))
    if split == "train" and index == 5 and self.path == prepared.path:
      raise BadRecord("torn")
    return record

  monkeypatch.setattr(Prepared, "read", rotten)
  folder = tokenize(request_of(), said.append)
  settings = from_config(config(prepared.path))
  source = coded_source(settings, folder)
  with pytest.raises(BadRecord, match="no picture: text"):
    source.record(4, np.random.default_rng(0))
  with pytest.raises(BadRecord, match="no record of a prepared data set"):
    source.record(5, np.random.default_rng(0))
  assert folder.read("train", 6) == encoded.read("train", 6)
  listed = tmp_path / "bad_records.jsonl"
  for stage in (batches(settings), batches(settings, source), batches(settings)):
    stage.keep_list(listed, first=False)
    for index in range(3):
      stage.batch(index, 8)
    assert stage.bad_records == {4, 5}
  keys = [json.loads(line)["key"] for line in listed.read_text().splitlines()]
  assert keys.count(encoded.read("train", 4).key) == 1, "as an image and as codes it is one bad record"


@pytest.mark.parametrize(
  "step, said",
  [(0, "at step 0 no stage has trained the tokenizer yet"), (1, "is being trained, step 1 of 2 of tokenizer; codes")],
)
def test_a_tokenizer_that_is_not_trained_is_refused(made, request_of, monkeypatch, step, said):
  run = load_run(made[1])
  monkeypatch.setattr(module, "load_run", lambda workdir: dataclasses.replace(run, step=step))
  assert said in refused(lambda: tokenize(request_of(), print))


def test_a_run_of_no_prepared_pictures_is_refused_and_so_are_codes_of_codes(made, encoded, request_of, monkeypatch):
  run = load_run(made[1])
  scenes = dataclasses.replace(run, settings=from_config(small.config()))
  of_codes = request_of(source=encoded.path)
  assert "holds codes already; give the prepared data set" in refused(lambda: tokenize(of_codes, print))
  monkeypatch.setattr(module, "load_run", lambda workdir: scenes)
  assert "the run learns from data.source.name=scenes" in refused(lambda: tokenize(request_of(), print))
