import jax
import jax.numpy as jnp
import numpy as np

from omniimage.models.chunks import ChunkLayout
from omniimage.models.omni import place_codes
from tests import small


def test_codes_go_into_their_placeholders_and_nowhere_else():
  s = small.settings()
  model = small.omni(s)
  batch = small.batch(s)
  first = model.vocabulary.codes
  B, I = batch["image_mask"].shape
  codes = jax.random.randint(jax.random.key(0), (B, I, 4), 1, s.tokenizer.codes)
  tokens = np.asarray(place_codes(batch["tokens"], codes, batch["image_start"], batch["image_mask"], first))
  holders = batch["tokens"] == first
  np.testing.assert_array_equal(tokens[~holders], batch["tokens"][~holders])
  for b, i in zip(*np.nonzero(batch["image_mask"])):
    start = batch["image_start"][b, i]
    np.testing.assert_array_equal(tokens[b, start : start + 4] - first, codes[b, i])
  assert holders.sum() == 4 * batch["image_mask"].sum()


def test_a_painter_reads_the_last_text_states_of_its_own_conversation_before_its_image():
  s = small.settings(**{"decoder.text_length": 3})
  model = small.omni(s)
  v = model.vocabulary
  # conversation 1: <user> a b <assistant> <image> 2 2 c c c c </image> <eos> <user> d …; conversation 2: <user> e …
  image = [v.image, v.size(2), v.size(2), *[v.codes] * 4, v.end_image]
  answer = [v.assistant, *image, v.eos]
  tokens = np.asarray([[v.user, 7, 8, *answer, v.user, 9, *answer, v.user, 5, *answer]])
  segments = np.asarray([[1] * 25 + [2] * 12])
  start = np.asarray([[7, 19, 31, 0]])
  hidden = jnp.arange(37.0)[None, :, None] * jnp.ones((1, 37, s.prior.width))
  states, exists = model.text_states(hidden, tokens, segments, start)
  read = [[int(x) for x, there in zip(states[0, i, :, 0], exists[0, i]) if there] for i in range(4)]
  assert read == [[1, 2], [1, 2, 14], [26], []]


def test_init_gives_stacked_layers_whatever_the_model_runs_with():
  s = small.settings()
  shapes = [jax.eval_shape(small.omni(s, scan=scan).init, jax.random.key(0)) for scan in (True, False)]
  assert jax.tree.map(lambda x: x.shape, shapes[0]) == jax.tree.map(lambda x: x.shape, shapes[1])
  assert shapes[0]["prior"]["layers"]["mlp"]["down"]["kernel"].shape == (2, 64, 32)


def test_fresh_parameters_do_not_depend_on_the_size_of_images():
  models = [small.omni(small.settings(**small.SHALLOW, **{"data.image_size": size})) for size in (16, 24)]
  jax.tree.map(np.testing.assert_array_equal, *(jax.jit(model.init)(jax.random.key(0)) for model in models))


def test_the_layout_of_a_rectangle_has_its_rows_above_each_other():
  assert small.omni(small.settings()).layout(2, 3, 2, 1) == ChunkLayout(rows=4, columns=6, chunk_rows=2, offset=1)
