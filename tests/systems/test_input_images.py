"""Images that the user shows, read by their codes, by features, or by both: the same in training and in sampling."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from omniimage.data import conversation
from omniimage.data.batches import Batches
from omniimage.data.conversation import ImageTurn, TextTurn
from omniimage.data.sources.source import Catalogue, Source
from omniimage.data.tasks import Conversation, without_words
from omniimage.distributed.mesh import make_mesh
from omniimage.sampling.events import TextEnd
from omniimage.sampling.generate import Generator
from omniimage.settings import INPUT_IMAGES, SettingsError
from omniimage.systems.omni_losses import Pass
from omniimage.training.optimizer import make_optimizer
from omniimage.training.sharded import abstract_batch, abstract_state, system_for
from omniimage.training.state import enter_stage, fresh_state, leave_stage
from omniimage.training.step import make_train_step
from tests import small

FEATURES = ("features", "both")


@functools.cache
def settings(read: str, **changes):
  return small.settings(**small.SHALLOW, **{"prior.input_images": read, **changes})


def picture(seed: int) -> np.ndarray:
  return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)


class Said(Source):
  """Conversations as they are given."""

  tasks = (Conversation(),)

  def __init__(self, *conversations):
    self.conversations = conversations

  def __len__(self) -> int:
    return len(self.conversations)

  def catalogue(self) -> Catalogue:
    return Catalogue(np.full(len(self), 30), np.ones(len(self), int))

  def record(self, index: int, rng: np.random.Generator):
    return list(self.conversations[index])

  def task(self, index: int) -> Conversation:
    return self.tasks[0]


def batch_of(s, conversations, rows: int) -> dict[str, np.ndarray]:
  data = dataclasses.replace(s.data, packing_rows=rows)
  source, v = Said(*conversations), small.omni(s).vocabulary
  return Batches(source, data, v, small.text_tokenizer(), s.buckets, s.seed).batch(0, rows)


# Training and sampling

ASKED = [
  TextTurn("a red star", False),
  ImageTurn(picture(0), True),
  ImageTurn(picture(1), False),
  TextTurn("now like this and", False),
  ImageTurn(picture(2), False),
]


class Caught(Exception):
  """The prompt was read."""


@functools.cache
def read_by_session(read: str) -> tuple[np.ndarray, np.ndarray]:
  """The lengths and hidden states of the prompts, with words and without, that a guided session has read, where it had
  read the first turns before."""
  s = settings(read, **{"data.sequence_length": 96})
  generator = Generator(s, small.params(small.omni(s)), small.text_tokenizer())
  context, read_beside = generator.context(), generator._pieces.read_beside
  next(generator.session(ASKED[:3], context=context))

  def caught(params, row, tokens, start, lengths, features):
    both = read_beside(params, row, tokens, start, lengths, features)
    raise Caught([len(context.tokens), *lengths], np.asarray(both.states))

  generator._pieces.read_beside = caught
  with pytest.raises(Caught) as found:
    next(generator.session(ASKED, context=context, guidance=2.0)._events)
  return found.value.args


@functools.cache
def read_by_training(read: str, turns: tuple) -> np.ndarray:
  """The hidden states of a row that holds the conversation alone, with an image as its answer."""
  s = settings(read, **{"data.sequence_length": 96, "data.images_per_row": 4})
  model, v = small.omni(s), small.omni(s).vocabulary
  encoded = conversation.encode([*turns, ImageTurn(picture(3), True)], small.text_tokenizer(), v, s.buckets[0])
  batch = {
    "tokens": encoded.tokens, "positions": encoded.positions, "segments": np.ones(len(encoded.tokens), np.int32),
    "images": np.stack(encoded.images), "image_mask": np.ones(4, bool), "image_start": encoded.image_starts,
    "image_is_target": encoded.image_is_target,
  }  # fmt: skip

  @jax.jit
  def hidden(params, batch):
    return Pass(model, s.stages["prior"], model.view(params), batch, None, None).hidden_BLD

  return np.asarray(hidden(small.params(model), {name: value[None] for name, value in batch.items()}))[0]


@pytest.mark.parametrize("read", INPUT_IMAGES)
def test_a_session_reads_a_conversation_as_training_does_with_words_and_without(read):
  lengths, hidden = read_by_session(read)
  wordless = without_words([*ASKED, ImageTurn(picture(3), True)], len(ASKED))[:-1]
  for form, length, own in zip((ASKED, wordless), lengths, hidden):
    trained = read_by_training(read, tuple(form))
    np.testing.assert_allclose(own[:length], trained[:length], atol=2e-5)
  assert lengths[0] > lengths[1]


def test_what_the_assistant_has_drawn_stays_codes():
  """Its pixels change nothing as long as its codes are the same; those of the user's pictures do."""
  s = settings("both")
  system = small.system(s)
  params = without_codes(small.params(system))
  batch = batch_of(
    s, [[TextTurn("a", False), ImageTurn(picture(i), own)] for i in range(4) for own in (True, False)], 8
  )
  keys = jax.random.split(jax.random.key(0), 8)

  @jax.jit
  def hidden(images):
    row = {**batch, "images": images}
    return Pass(system.omni, s.stages["prior"], system.omni.view(params), row, keys, jnp.int32(0)).hidden_BLD

  targets = batch["image_is_target"][..., None, None, None]
  plain, drawn, shown = (
    hidden(np.where(x, 255 - batch["images"], batch["images"])) for x in (False, targets, ~targets)
  )
  np.testing.assert_array_equal(drawn, plain)
  assert np.abs(shown - plain).max() > 1e-3


def without_codes(params):
  """With a tokenizer that gives every place of every image the same code."""
  encoder = params["tokenizer"]["encoder"]
  blind = {**encoder, "codes": jax.tree.map(jnp.zeros_like, encoder["codes"])}
  return {**params, "tokenizer": {**params["tokenizer"], "encoder": blind}}


# Losses and gradients


def test_where_nobody_shows_an_image_losses_are_those_of_codes():
  batch, losses, params = small.batch(settings("codes")), {}, small.params(small.system(settings("features")))
  assert (batch["image_is_target"] == batch["image_mask"]).all()
  for choice in ("codes", "features"):
    system = small.system(settings(choice))
    stage = dataclasses.replace(system.settings.stages["prior"], weights={"text": 1.0, "image": 1.0})
    keys, totals = jax.random.split(jax.random.key(0), 8), system.totals(batch)
    losses[choice] = jax.jit(functools.partial(system.losses, stage))(params, batch, keys, jnp.int32(0), totals)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), losses["features"], losses["codes"])


def test_a_gradient_of_words_reaches_the_adapter_and_the_encoder():
  system = small.system(settings("both"))
  s = system.settings
  batch = batch_of(s, [[ImageTurn(picture(i), False), TextTurn("a star", True)] for i in range(8)], 8)
  keys, totals = jax.random.split(jax.random.key(0), 8), system.totals(batch)
  stage = dataclasses.replace(s.stages["prior"], weights={"text": 1.0})

  def loss(params):
    return system.losses(stage, params, batch, keys, jnp.int32(0), totals)[0]

  gradient = jax.jit(jax.grad(loss))(small.params(system))
  encoder = gradient["tokenizer"]["encoder"]
  for leaf in jax.tree.leaves((gradient["prior"]["adapter"], encoder["layers"], encoder["norm"])):
    assert np.abs(leaf).max() > 1e-6
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(encoder["codes"])), "codes pass no gradient of words"


# What is learnt

WORDS = ("star", "ring", "moon", "heart")


@pytest.mark.parametrize("read", ["codes", "features"])
def test_what_no_code_tells_is_learnt_from_features_and_from_codes_alone_it_is_not(read):
  """Four pictures, a word each, and a tokenizer to which all pictures are the same codes."""
  s = settings(read, **{"data.sequence_length": 32, "data.images_per_row": 1, "sampling.temperature": 0.0})
  system = small.system(s)
  stage = dataclasses.replace(s.stages["prior"], weights={"text": 1.0}, steps=60, rates={"prior": 1e-2})
  said = [[ImageTurn(picture(i), False), TextTurn(word, True)] for i, word in enumerate(WORDS)]
  batch = batch_of(s, said * 2, 8)
  params = without_codes(jax.jit(system.init)(jax.random.key(0)))
  state = enter_stage(fresh_state(params), stage.moves, make_optimizer(s.optimizer, stage))
  step = jax.jit(make_train_step(system, stage, 0))
  for _ in range(stage.steps):
    state, metrics = step(state, batch)
  generator = Generator(s, leave_stage(state).params, small.text_tokenizer())
  codes = np.asarray(generator.encode(np.stack([turns[0].image for turns in said])))
  assert len(np.unique(codes)) == 1
  answers = [list(generator.session(turns[:1], answer="text"))[-1] for turns in said]
  assert all(isinstance(answer, TextEnd) for answer in answers)
  right = sum(answer.text.strip() == word for answer, word in zip(answers, WORDS))
  if read == "codes":
    assert len({answer.text for answer in answers}) == 1 and right <= 1 and metrics["text"] > 0.3
  else:
    assert right == len(WORDS) and metrics["text"] < 0.1


# Stages, meshes, settings


def test_codes_that_were_stored_cannot_stand_for_features():
  for read in FEATURES:
    with pytest.raises(
      SettingsError, match=f"prior.input_images='{read}' reads more .*data.codes='/codes'; set"
    ) as error:
      settings(read, **{"data.codes": "/codes"})
    assert "\n" not in str(error.value)
  stages = settings("codes").stages
  for read, needed in (("codes", False), ("features", True), ("both", True)):
    assert small.system(settings(read)).needs_pixels(stages["prior"]) is needed


@pytest.mark.parametrize(
  "gather, shape", [("compiler", {"fsdp": 2, "tensor": 2, "sequence": 2}), ("hand", {"data": 2, "fsdp": 4})]
)
def test_a_step_is_traced_however_parameters_lie(gather, shape):
  mesh_of = {f"mesh.{axis}": ways for axis, ways in shape.items()}
  s = settings("both", **{"gather_params": gather, "scan_layers": True, "remat": "full", **mesh_of})
  mesh = make_mesh(s.mesh)
  system = system_for(s, small.text_tokenizer().size, mesh)
  state, batch = abstract_state(system, "joint", mesh), abstract_batch(system, "joint", 8, mesh)
  with jax.set_mesh(mesh):
    after, _ = jax.eval_shape(make_train_step(system, s.stages["joint"], 0), state, batch)
  assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
  placed = state.params["prior"]["adapter"]["out"]["kernel"].sharding
  assert placed.spec == (jax.sharding.PartitionSpec("tensor", "fsdp"))
