"""The suites of `launch.evaluate`, by name, in the order in which they run. A new one is one file here and one row."""

from omniimage.data.sources.source import Source
from omniimage.errors import UserError
from omniimage.evaluation.suites.binding import BindingSuite
from omniimage.evaluation.suites.caption import CaptionSuite
from omniimage.evaluation.suites.conversation import ConversationSuite
from omniimage.evaluation.suites.edits import EditsSuite
from omniimage.evaluation.suites.quality import QualitySuite
from omniimage.evaluation.suites.questions import QuestionsSuite
from omniimage.evaluation.suites.reconstruction import ReconstructionSuite
from omniimage.evaluation.suites.seams import SeamsSuite
from omniimage.evaluation.suites.sketch import SketchSuite
from omniimage.evaluation.suites.suite import Suite
from omniimage.systems.system import ABILITIES, System

SUITES: dict[str, Suite] = {
  "binding": BindingSuite(),
  "caption": CaptionSuite(),
  "questions": QuestionsSuite(),
  "edits": EditsSuite(),
  "sketch": SketchSuite(),
  "conversation": ConversationSuite(),
  "reconstruction": ReconstructionSuite(),
  "seams": SeamsSuite(),
  "quality": QualitySuite(),
}


def suites_of(name: str, source: Source, system: System) -> tuple[str, ...]:
  """The suites that a name stands for: itself, or "all" that fit the run. UserError if it fits nothing.

  Args:
    source: of the run, its test split.
    system: of the run, whose settings say what it has learnt.
  """
  learnt = system.settings.data.source.name
  misfits = {suite: _lacks(row, system) or row.misfit(source, learnt) for suite, row in SUITES.items()}
  fitting = tuple(suite for suite, why in misfits.items() if not why)
  if name == "all":
    return fitting
  if name not in SUITES:
    raise UserError(f"there is no suite {name!r}; give one of {', '.join(SUITES)}, or all")
  if misfits[name]:
    instead = " or ".join(f"--suite={suite}" for suite in fitting)
    raise UserError(f"{name} {misfits[name]}; evaluate {instead}")
  return (name,)


def _lacks(suite: Suite, system: System) -> str:
  """Why a suite cannot measure any run of a system; empty if it can."""
  if not suite.needs or suite.needs in system.abilities:
    return ""
  return f"needs a system that {ABILITIES[suite.needs]}, as {system.settings.system} does not"
