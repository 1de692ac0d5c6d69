"""The comparison of systems: what it counts, what it keeps, and that it goes on wherever it was stopped."""

import dataclasses
import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from ml_collections import ConfigDict

from launch import config_file
from omniimage.data.scenes.captions import parse
from omniimage.errors import UserError
from omniimage.evaluation import held_out
from omniimage.settings import from_config
from omniimage.workdir import Run
from tests import small
from tests.benchmarks.without_flags import load
from tests.evaluation.fakes import FakeGenerator, recolored

binding = load("binding")
cells, summary, plots = load("binding_cells"), load("binding_figures"), load("binding_plot")

PLAN = cells.Plan(
  config="configs/scenes.py:tiny",
  world={**cells.WORLD, "max_objects": 2},
  changes={},
  scenes=6,
  tuning_scenes=4,
  objects=20,
  batch=4,
  tuned={"omni": {"diffusion_steps": (10, 20), "guidance": (1.0, 1.5)}},
)
DRAWN = 4 + 2 * 2  # settings tried, splits × numbers of objects
SIZE = {
  "parameters": 100,
  "parameters_by_part": {"prior": 100},
  "training_flops": 1e9,
  "flops_by_stage": {"prior": 1e9},
}


@dataclasses.dataclass
class Fakes:
  """What stands for the training and the drawing of cells.

  Attributes:
    commands: of trainings.
    sampling: of each time that scenes were drawn.
    asked: captions of each time.
    painted: (scene, sampling, seed) → the scene that is shown.
    dies_at: the number of the drawing at which the process is killed.
  """

  commands: list = dataclasses.field(default_factory=list)
  sampling: list = dataclasses.field(default_factory=list)
  asked: list = dataclasses.field(default_factory=list)
  painted: object = staticmethod(lambda scene, sampling, seed: scene)
  dies_at: int = -1


@pytest.fixture
def fakes(monkeypatch):
  found, seeds = Fakes(), []

  def load_run(path):
    seeds.append(int(path.parent.name))
    settings = cells.Cell(PLAN, "omni", seeds[-1], path.parents[2]).settings
    return Run(settings, {}, small.text_tokenizer(), step=1)

  def generator(run, sampling):
    made = FakeGenerator(run.settings, lambda scene: found.painted(scene, sampling, run.settings.seed))
    made.sampling = sampling
    return made

  def drawn(made, captions, seed, batch):
    if len(found.sampling) == found.dies_at:
      raise KeyboardInterrupt
    found.sampling.append(made.sampling)
    found.asked.append(captions)
    return held_out.drawn(made, captions, seed, batch)

  monkeypatch.setattr(cells, "load_run", load_run)
  monkeypatch.setattr(cells, "generator", generator)
  monkeypatch.setattr(cells, "drawn", drawn)
  monkeypatch.setattr(cells, "_run", found.commands.append)
  monkeypatch.setattr(summary, "size_of", lambda cell: SIZE)
  return found


def cells_in(folder, seeds=(0,), plan=PLAN):
  return [cells.Cell(plan, "omni", seed, folder) for seed in seeds]


def test_what_was_drawn_is_counted_over_scenes_and_seeds(fakes, tmp_path, capsys):
  fakes.painted = lambda scene, sampling, seed: recolored(scene) if seed else scene
  binding.compare(cells_in(tmp_path, seeds=(0, 1)))
  found = json.loads((tmp_path / "binding.json").read_text())
  one, two = found["systems"]["omni"]["test"]
  assert (one["objects"], one["scenes"], one["seeds"]) == (1, 6, [0, 1])
  assert one["bound"] == [0.5, 0.0, 1.0] and two["bound"] == [0.75, 0.5, 1.0], "seeds differ, scenes do not"
  assert one["whole"][0] == two["whole"][0] == 0.5 and one["mistakes"] == two["mistakes"] == {"color": 6}
  assert len(found["systems"]["omni"]["unseen"]) == 2 and not found["missing"] and len(found["commits"]) == 1
  first, second = (cell.place for cell in cells_in(tmp_path, seeds=(0, 1)))
  trained = [{"launch.train", f"--config={own / 'config.py'}", f"--workdir={own / 'run'}"} for own in (first, second)]
  assert [own < set(command) for own, command in zip(trained, fakes.commands)] == [True, True]
  config = from_config(config_file.load(str(second / "config.py")))
  assert config == cells_in(tmp_path, seeds=(1,))[0].settings and config.seed == 1
  assert config.data.source.unseen == cells.WORLD["unseen"] and config.data.source.validation == 0.05
  assert (tmp_path / "binding.md").read_text().strip() == capsys.readouterr().out.strip()
  ET.parse(tmp_path / "binding.svg")


def test_the_best_setting_is_found_on_scenes_that_are_neither_trained_nor_graded(fakes, tmp_path):
  best = {"diffusion_steps": 10, "guidance": 1.5}
  fakes.painted = lambda scene, sampling, seed: scene if sampling["guidance"] == 1.5 else recolored(scene)
  (cell,) = cells_in(tmp_path)
  binding.compare([cell])
  tuned = json.loads((cell.place / "tuning.json").read_text())
  assert tuned["chosen"] == best, "of two that are as good the first"
  assert [row["objects"] for row in tuned["tried"]] == [pytest.approx(1 / 3), 1, pytest.approx(1 / 3), 1]
  assert fakes.sampling[4:] == [best] * 4
  withheld, scenes = cell.settings.data.source.held_out, [{parse(c, 2) for c in own} for own in fakes.asked]
  splits = [{withheld.split_of(scene) for scene in own} for own in scenes]
  assert splits == [{"validation"}] * 4 + [{"test"}] * 2 + [{"unseen"}] * 2
  assert {len(scene.objects) for scene in scenes[0]} == {1, 2} and {len(s.objects) for s in scenes[5]} == {2}
  assert scenes[0] == scenes[1] and len(scenes[4]) == 6, "all settings are tried on the same scenes"


@pytest.mark.parametrize("dies_at", [0, 2, 5])
def test_what_was_done_before_a_kill_is_not_done_again(fakes, tmp_path, dies_at):
  whole = tmp_path / "whole", tmp_path / "killed"
  binding.compare(cells_in(whole[0]))
  fakes.sampling.clear()
  fakes.commands.clear()
  fakes.dies_at = dies_at
  with pytest.raises(KeyboardInterrupt):
    binding.compare(cells_in(whole[1]))
  fakes.dies_at = -1
  binding.compare(cells_in(whole[1]))
  assert len(fakes.sampling) == DRAWN and len(fakes.commands) == 1
  first, second = ((path / "binding.json").read_bytes() for path in whole)
  assert first == second
  binding.compare(cells_in(whole[1]))
  assert len(fakes.sampling) == DRAWN and len(fakes.commands) == 1


def test_a_training_that_fails_ends_the_command_with_its_code(fakes, tmp_path, monkeypatch):
  def fails(command):
    raise SystemExit(75)

  monkeypatch.setattr(cells, "_run", fails)
  with pytest.raises(SystemExit) as end:
    binding.compare(cells_in(tmp_path))
  assert end.value.code == 75 and not fakes.sampling
  missing = json.loads((tmp_path / "binding.json").read_text())["missing"]
  assert missing == [f"omni/0/{name}" for name in ("tuning", "test-01", "test-02", "unseen-01", "unseen-02")]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"changes": {"stages.prior.steps": 7}}, r"config\.stages\.prior\.steps 1500 there and 7 here"),
    ({"scenes": 7}, r"plan\.scenes 6 there and 7 here"),
  ],
)
def test_files_of_another_config_are_refused_in_one_line(fakes, tmp_path, changes, message):
  binding.compare(cells_in(tmp_path))
  drawn = len(fakes.sampling)
  with pytest.raises(UserError, match=rf"cell\.json: .* of another configuration, {message}; give another") as error:
    binding.compare(cells_in(tmp_path, plan=dataclasses.replace(PLAN, **changes)))
  assert "\n" not in str(error.value) and len(fakes.sampling) == drawn


def test_what_another_commit_has_made_is_marked(fakes, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(cells, "commit", lambda: "abc")
  binding.compare(cells_in(tmp_path))
  monkeypatch.setattr(cells, "commit", lambda: "def")
  binding.compare(cells_in(tmp_path, seeds=(0, 1)))
  assert json.loads((tmp_path / "binding.json").read_text())["commits"] == ["abc", "def"]
  assert "Made at several commits: abc, def." in capsys.readouterr().out


def test_a_key_or_a_system_that_there_is_not_is_said_before_anything_is_trained(fakes, tmp_path):
  with pytest.raises(UserError, match=r"cannot be changed so: .*steeps"):
    binding.compare(cells_in(tmp_path, plan=dataclasses.replace(PLAN, changes={"stages.prior.steeps": 7})))
  with pytest.raises(UserError, match=r"sets nothing aside to tune on: data\.source\.validation=0"):
    binding.compare(cells_in(tmp_path, plan=dataclasses.replace(PLAN, world={})))
  other = cells.Cell(PLAN, "other", 0, tmp_path)
  with pytest.raises(UserError, match=r"nothing is tuned for 'other'"):
    binding.compare([other])


def test_the_world_of_a_mixture_is_its_first_and_all_hold_out_the_same():
  scenes = small.config(**{"data.source.unseen": ("red star",)}).data.source.to_dict()
  emoji, other = {"name": "emoji"}, {**scenes, "unseen": ()}

  def world(*sources):
    mixture = {"name": "mixture", "sources": sources, "weights": (1.0,) * len(sources)}
    changes = {"data.source": ConfigDict(mixture), "data.sequence_length": 96}
    return cells.world_of(small.settings(**changes).data.source)

  assert world(scenes, emoji).unseen == ("red star",) and world({**scenes, "max_objects": 4}, scenes).max_objects == 4
  with pytest.raises(UserError, match="hold out different things"):
    world(scenes, other)
  for sources in ((emoji, scenes), (emoji,)):
    with pytest.raises(UserError, match=r"data\.source is mixture; scenes are graded"):
      world(*sources)


def test_all_scenes_of_a_mixture_hold_out_the_same(tmp_path):
  source = small.config().data.source.to_dict()
  mixture = {
    "name": "mixture",
    "sources": ({**source, "max_objects": 4}, source, {"name": "emoji"}),
    "weights": (1, 1, 1),
  }
  (tmp_path / "mixed.py").write_text(
    "from configs import scenes\nfrom ml_collections import ConfigDict\n\n\ndef get_config():\n"
    f"  config = scenes.get_config('tiny')\n  config.data.source = ConfigDict({mixture!r})\n  return config\n"
  )
  plan = dataclasses.replace(PLAN, config=str(tmp_path / "mixed.py"), world=cells.WORLD)
  (cell,) = cells_in(tmp_path, plan=plan)
  cell.claim()
  trained = from_config(config_file.load(str(cell.place / "config.py")))
  few, many = trained.data.source.sources[1::-1]
  assert trained == cell.settings and few.unseen == many.unseen == cells.WORLD["unseen"]
  assert (few.max_objects, many.max_objects) == (2, 4) and len(cell.pieces()) == 1 + 2 * 4


# ------------------------------------------------------------------------------------------------------------- figures


def test_an_interval_is_of_scenes_and_of_seeds():
  assert summary.interval(np.full((3, 50), 4), 4) == (1.0, 1.0, 1.0)
  apart = np.repeat([[1], [0]], 200, axis=1)
  assert summary.interval(apart, 1) == (0.5, 0.0, 1.0), "two seeds that differ leave nothing known"
  coins = np.random.default_rng(0).integers(2, size=(1, 400))
  share, low, high = summary.interval(coins, 1)
  error = 1.96 * (share * (1 - share) / 400) ** 0.5
  assert share == coins.mean() and (low, high) == pytest.approx((share - error, share + error), abs=0.01)
  same = summary.interval(np.repeat(coins, 3, axis=0), 1)
  assert same == pytest.approx((share, low, high), abs=0.01), "three seeds of the same pictures tell no more than one"


def test_sizes_are_those_of_the_system_and_unequal_ones_are_named(tmp_path, monkeypatch):
  size = summary.size_of(cells_in(tmp_path)[0])
  assert size["parameters"] == sum(size["parameters_by_part"].values()) > 100_000
  assert set(size["parameters_by_part"]) == {"tokenizer", "prior", "decoder"}
  assert set(size["flops_by_stage"]) == {"tokenizer", "prior", "decoder", "joint"}
  assert size["training_flops"] == sum(size["flops_by_stage"].values()) > 1e9
  own = {"a": 100, "b": 102, "c": 104}
  monkeypatch.setattr(summary, "size_of", lambda cell: {**SIZE, "parameters": own[cell.system]})
  found = summary.figures([cells.Cell(PLAN, name, 0, tmp_path) for name in own])
  assert [row["equal"] for row in found["systems"].values()] == [True, True, False]
  assert "Not within 3% of the first: c." in summary.tables(found) and "+4.0 %" in summary.tables(found)


def test_a_plot_has_a_line_a_system_and_nothing_runs_off_it():
  def rows(share):
    return [
      {"objects": n, "bound": (share, share - 0.1, share + 0.1), "whole": (share, 0.0, 1.0)} for n in range(1, 21)
    ]

  systems = {name: {"test": rows(0.5), "unseen": rows(0.2)} for name in ("omni", "a & b", "c", "d", "e")}
  root = ET.fromstring(plots.plot(systems))
  tag = "{http://www.w3.org/2000/svg}"
  assert len(root.findall(f".//{tag}polyline")) == 2 * 2 * 5 and len(root.findall(f".//{tag}polygon")) == 2 * 5
  assert "a & b" in [text.text for text in root.iter(f"{tag}text")]
  for line in root.iter(f"{tag}polyline"):
    points = np.array([point.split(",") for point in line.get("points").split()], float)
    assert (points >= 0).all() and (points <= [plots.WIDTH, plots.HEIGHT]).all() and len(points) == 20
  ET.fromstring(plots.plot({"omni": {"test": [], "unseen": []}}))


def test_the_plots_colors_are_legible_on_white_and_on_black():
  def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return np.dot(linear, (0.2126, 0.7152, 0.0722))

  for color in (*plots.COLORS, plots.GRAY):
    assert 1.05 / (luminance(color) + 0.05) >= 3 and (luminance(color) + 0.05) / 0.05 >= 3, color
