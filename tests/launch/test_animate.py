"""launch.animate: a GIF of a picture coming about."""

import numpy as np
import pytest
from PIL import Image

from omniimage.sampling.animation import frames
from omniimage.sampling.events import to_uint8
from tests import small
from tests.launch import in_process
from tests.launch.random_run import random_run


@pytest.mark.parametrize("changes", [{}, {"solver": "heun", "chunk_rows": 2, "chunk_columns": 2}], ids=str)
def test_frames_begin_gray_show_noise_and_end_in_the_drawing(changes):
  generator = small.generator()
  kinds, shown = zip(*frames(generator, "a red star", seed=1, **changes))
  chunks, asked = (4, 2 * 4 - 1) if changes else (2, 4)
  assert kinds == ("tokens",) * 3 + ("painting",) * chunks * (asked + 1)
  drawing = generator(["a red star"], seed=1, **changes)
  assert np.unique(shown[0]).size == 1
  np.testing.assert_array_equal(shown[2], to_uint8(np.asarray(drawing.rendering)[0]))
  difference = np.abs(shown[-1].astype(int) - to_uint8(np.asarray(drawing.images)[0]))
  assert difference.max() <= 1, "up to rounding"
  first = shown[3][:8, :8] if changes else shown[3][:8]
  assert first.std() > 80, "a chunk begins as noise"
  np.testing.assert_array_equal(shown[3][8:], shown[2][8:], "and the others are tokens still")


def test_a_gif_is_written(tmp_path, capsys):
  random_run(tmp_path / "run")
  out = tmp_path / "a star.gif"
  in_process.call("animate", f"--workdir={tmp_path / 'run'}", "--prompt=a red star", f"--out={out}", "--scale=2")
  assert "13 frames, drawn at step 1" in capsys.readouterr().out
  with Image.open(out) as gif:
    assert gif.n_frames > 8 and gif.size == (32, 32)


@pytest.mark.parametrize(
  "args, said",
  [
    ([], "give --workdir=runs/scenes"),
    (["--prompt=a star", "--out={}/star.png"], "must be the name of a GIF file, as in --out=star.gif"),
    (["--prompt=a star", "--out={}/none/star.gif"], "its folder does not exist"),
  ],
)
def test_what_cannot_be_is_named(tmp_path, capsys, args, said):
  with pytest.raises(SystemExit):
    in_process.call("animate", f"--workdir={tmp_path}", *(arg.format(tmp_path) for arg in args))
  assert said in capsys.readouterr().err
