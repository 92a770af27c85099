"""Jobs: what a worker process is told to do, and where to leave the result.

A worker gets a job as one JSON document and nothing else: a replaying worker is given code,
fork and order, never the recorded traces or outcomes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from auditkit.records.manifest import CodeFile
from auditkit.records.own_perturbation import OwnPerturbation
from auditkit.records.plan import StudyPlan

JobKind = Literal[
    "describe",
    "build",
    "preflight",
    "register",
    "trunk",
    "branches",
    "seed",
    "modules",
    "environment",
    "load",
]


@dataclass(frozen=True)
class ProgramSource:
    """Where a factory is loaded from.

    Attributes:
        target: ``FILE.py:NAME`` or ``package.module:NAME``.
        folder: Absolute folder that the file lies in, or that modules are looked up in.
        arguments: Extra arguments of the factory.
    """

    target: str
    folder: str
    arguments: dict[str, str]


@dataclass(frozen=True)
class Job:
    """One piece of work for a fresh process.

    Attributes:
        kind: ``describe`` (load the program), ``build`` (call its factory), ``preflight`` (train
            it for a few steps and ask it for all that a study needs), ``register`` (build the
            program and digest its code and data), ``trunk`` (steps 1..T of one seed from its
            start), ``branches`` (branches of one seed from its fork), ``seed`` (both, one after
            the other), ``modules`` (re-run one branch and digest every module at one step),
            ``environment`` (say what it runs on; nothing of the program is loaded) or ``load``
            (import the program, and have further jobs of it done in forks).
        program: The factory.
        plan: The study plan; None for ``describe``, which reads the program's own.
        seed: The study seed.
        out: Absolute folder in which the job's files are written.
        suffix: Appended to every file's name: ``.partial`` while a run is under way.
        fork: Absolute path of the fork file (``branches``, ``modules`` of a branch).
        order: Absolute path of the order file (the same).
        branches: Names of the branches to run.
        step: The step to look into (``modules``), how many steps to time (``preflight``), or 0 to
            leave the dataset unread (``register``).
        code: Absolute folder to copy the program's sources to, or None.
        sources: The sources as the study found them, with which complete parts of it were made:
            of these no other bytes are copied to ``code``.
        sample_seed: Whose per-sample streams the dataset is read with (``register``); by default
            the study seed's.
        versions: Version of each branch's perturbation, by branch, where an earlier study is
            replayed; None for the current ones.
        judged: Whether to report the files of every module that was imported (a replay).
        listed: Names of files below the program's folder that the recorded program opened
            (a replay).
        references: Absolute folder in which the control left what branches are compared with where
            a probe's tables are too large to keep; ``out`` where None.
        nudges: Scales of the placebo's nudge to try (``preflight``), until one has grown.
        position_recipe: How what is kept of a probe by position is computed, where branches of
            an earlier build stand beside it; None for the current way.
        one_by_one: Whether a branch begins only when the one before it has ended.
        shares_imports: Whether its process may be forked from one that has imported the program
            for other jobs, too: not where two processes are compared, to see what an import
            leaves to chance.
    """

    kind: JobKind
    program: ProgramSource
    plan: StudyPlan | None
    seed: int
    out: str
    suffix: str = ""
    fork: str | None = None
    order: str | None = None
    branches: tuple[str, ...] = ()
    step: int | None = None
    code: str | None = None
    sources: tuple[CodeFile, ...] = ()
    sample_seed: int | None = None
    judged: bool = False
    versions: dict[str, int] | None = None
    listed: tuple[str, ...] = ()
    nudges: tuple[int, ...] = ()
    references: str | None = None
    position_recipe: int | None = None
    one_by_one: bool = False
    shares_imports: bool = False

    def version_of(self, branch: str) -> int | None:
        """Version of a branch's perturbation, or None for the current one."""
        return None if self.versions is None else self.versions.get(branch)


@dataclass(frozen=True)
class Description:
    """What a ``describe`` job finds out.

    Attributes:
        plan: The program's ``STUDY``, or None.
        own_perturbations: What the study file declares, whether the plan names it or not.
    """

    plan: StudyPlan | None
    own_perturbations: tuple[OwnPerturbation, ...] = ()


@dataclass(frozen=True)
class ModuleTrace:
    """What a ``modules`` job finds out: digests in the order in which modules ran.

    Attributes:
        entries: ``NAME PASS#N`` and hexadecimal digest pairs: ``input`` and ``output`` of each
            module's forward call, ``grad`` of each parameter.
    """

    entries: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Progress:
    """A message that a worker sends while it works.

    Attributes:
        seed: The study seed.
        branch: ``trunk``, ``control`` or another branch.
        step: The last step that was taken.
        done: Steps that this job has taken; of a worker's branch, that this branch has.
        total: Steps that it will take.
        fork: The step that its branches begin after: a study may have several.
        kept: Steps of an interrupted run that need not be taken again.
    """

    seed: int
    branch: str
    step: int
    done: int
    total: int
    fork: int | None = None
    kept: int = 0
