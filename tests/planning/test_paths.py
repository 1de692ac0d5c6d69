"""Where in the model an instruction comes from."""

import pytest

from omniimage.planning.paths import CARRIED, UNNAMED, module_path

FORWARD, BACKWARD = "jit(train_step)/shard_map/jvp(Prior)", "jit(train_step)/shard_map/transpose(jvp(Prior))"


@pytest.mark.parametrize(
  ("op_name", "path", "kind"),
  [
    (f"{FORWARD}/while/body/eval_jaxpr/layers/mlp/up/dot_general", "prior/layers/mlp/up", "forward"),
    (f"{BACKWARD}/while/body/checkpoint/layers/mlp/up/dot_general", "prior/layers/mlp/up", "backward"),
    (f"{BACKWARD}/checkpoint/rematted_computation/norm/mul", "prior/norm", "recomputed"),
    ("jit(step)/Prior/layers_3/attention/out/dot_general", "prior/layers/attention/out", "forward"),
    ("jit(step)/jvp(ImageTokenizer.encode)/encoder/dot_general", "image_tokenizer.encode/encoder", "forward"),
    ("jit(step)/jvp(Prior)/layers/attention/attention.keys_values/key/add", "prior/layers/attention/key", "forward"),
    ("jit(step)/jvp(Prior)/layers/attention/bqhd,bkhd->bhqk/dot_general", "prior/layers/attention", "forward"),
    (f"{FORWARD}/while/body/jit(dynamic_index_in_dim)/squeeze", f"prior/{CARRIED}", "forward"),
    ("jit(train_step)/mul", "train_step", "other"),
    ("jit(train_step)/jit(clip)/mul", "clip", "other"),
    ("jit(train_step)/jvp()/while/body/dot_general", "train_step", "forward"),
    ("", UNNAMED, "other"),
  ],
)  # fmt: skip
def test_the_module_and_the_pass_are_read_off_the_name(op_name, path, kind):
  assert module_path(op_name) == (path, kind)
