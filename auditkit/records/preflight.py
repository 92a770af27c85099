"""What is found out about a program before a study spends anything on it."""

from __future__ import annotations

from dataclasses import dataclass

from auditkit.records.environment import Environment
from auditkit.records.manifest import CodeFile
from auditkit.records.opened import OpenedFiles
from auditkit.records.results import BuiltProgram


@dataclass(frozen=True)
class Cost:
    """What a few timed steps of a program cost.

    Attributes:
        step_seconds: Median time of a recorded training step.
        start_seconds: Processor time of importing the program.
        build_seconds: Time to call the factory.
        branch_seconds: Time to restore a fork, and to evaluate and digest the branch at every time.
        snapshot_bytes: Size of one fork file.
        row_bytes: Evidence of one step.
        n_probe: Examples of the probe.
        n_classes: Scores that an example of the probe is given.
        outcome_bytes: What a branch keeps of the probe at one time, where it is no whole table.
        alone: What a fork would share or lack, for people: every branch has a new process then.
        imports_alone: Whether each of them imports the program, too.
    """

    step_seconds: float
    start_seconds: float
    build_seconds: float
    branch_seconds: float
    snapshot_bytes: int
    row_bytes: int
    n_probe: int
    n_classes: int
    outcome_bytes: int | None = None
    alone: tuple[str, ...] = ()
    imports_alone: bool = False


@dataclass(frozen=True)
class NudgeTrial:
    """How far a nudge of every weight had carried the probe when the trial ended.

    Attributes:
        scale: Size of the nudge, in units in the last place.
        steps: Steps that were trained after it.
        halfway: Total variation from the same steps without it, at half of these steps, of the
            draw that was carried less far.
        end: The same at the last of them.
        of: What stands for total variation where the probe gives no probabilities, for people.
        began: The step after which the weights were nudged.
    """

    scale: int
    steps: int
    halfway: float
    end: float
    of: str = "TV"
    began: int = 0


@dataclass(frozen=True)
class Preflight:
    """A program that was built once, trained for a few steps, and asked for everything.

    Attributes:
        cost: What it costs.
        built: What its factory made.
        code: Its sources.
        opened: What it opened while it was built; None for a script, where nobody looks.
        environment: Where it ran.
        undecided: What found nothing to change yet, a line each: the optimizer had not stepped, or
            something is still what it would become.
        nudges: Trials of the placebo's nudge, the smallest first; none where none was asked for.
        notes: What a reviewer cannot compare, or will not find, of the files that it opened, and
            what the program warned of, once each.
    """

    cost: Cost
    built: BuiltProgram
    code: tuple[CodeFile, ...]
    opened: OpenedFiles | None
    environment: Environment
    undecided: tuple[str, ...] = ()
    nudges: tuple[NudgeTrial, ...] = ()
    notes: tuple[str, ...] = ()
