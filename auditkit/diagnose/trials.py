"""Run a command several times and see whether its steps are the same; and what makes them so."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from auditkit.errors import AuditError, Undecided
from auditkit.evidence.comparison import Mismatch, compare_rows
from auditkit.processes.row_server import RankStatus, RowServer, ScriptInfo
from auditkit.records.differences import kind_of
from auditkit.records.environment import THREAD_VARIABLES
from auditkit.records.evidence import Trace
from auditkit.records.task import RowsTask
from auditkit.replay.live_comparison import CommandConfig


@dataclass(frozen=True)
class Experiment:
    """A change of the conditions, and what it did.

    Attributes:
        change: What was set in every run.
        outcome: ``equal``, ``still differs``, or what the script raised.
        remedy: What to do where it made the runs equal.
    """

    change: str
    outcome: str
    remedy: str

    @property
    def helped(self) -> bool:
        """Whether the runs were equal."""
        return self.outcome == "equal"


@dataclass
class Trial:
    """One run of the first steps: every row of every process."""

    rows: dict[int, list[Trace]] = field(default_factory=dict)
    by_rank: dict[int, RankStatus] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Steps that every process took."""
        return min((len(_step_rows(rows)) for rows in self.rows.values()), default=0)

    @property
    def info(self) -> ScriptInfo:
        """What its first process ran on."""
        info = self.by_rank[min(self.by_rank)].info
        if info is None:
            raise Undecided("the loop took no step")
        return info

    def starts(self, other: Trial) -> tuple[str, ...]:
        """Random streams in which two runs began differently."""
        here, there = self.info.starts, other.info.starts
        return tuple(name for name in sorted(here) if here[name] != there.get(name))

    def draws_from(self, stream: str) -> bool:
        """Whether a random stream was drawn from."""
        rows = [row for rows in self.rows.values() for row in rows]
        return len({row.columns.get(stream) for row in rows}) > len(self.rows)


def run_trial(
    config: CommandConfig,
    task: RowsTask | Callable[[int], RowsTask],
    variables: Mapping[str, str] | None = None,
) -> Trial:
    """Run the command for some steps.

    Args:
        config: How.
        task: The task of its processes, or of each rank.
        variables: Further environment variables.

    Raises:
        Undecided: When no loop was seen, or it failed.
    """
    trial = Trial()

    def on_row(status: RankStatus, row: Trace) -> dict[str, Any]:
        trial.rows.setdefault(status.rank, []).append(row)
        return {"go": True}

    server = RowServer((lambda _: task) if isinstance(task, RowsTask) else task, on_row)
    ended = server.run(
        config.runner,
        config.command,
        {**config.variables, **(variables or {})},
        config.output,
    )
    server.check(ended)
    trial.by_rank = server.by_rank
    if not trial.rows:
        raise Undecided("the loop took no step")
    return trial


def compare_trials(left: Trial, right: Trial, ignored: Collection[str] = ()) -> Mismatch | None:
    """The first row in which two runs differ.

    Args:
        left: One run.
        right: The other.
        ignored: Columns that are not looked at.
    """
    found = []
    starts = [name for name in left.starts(right) if name not in ignored]
    for rank in sorted(set(left.rows) | set(right.rows)):
        here, there = left.rows.get(rank, []), right.rows.get(rank, [])
        where = f"rank {rank}"
        for one, other in zip(here, there, strict=False):
            first = starts if one.first_step == 1 else ()
            mismatch = compare_rows(where, _without(one, ignored), _without(other, ignored), first)
            if mismatch is not None:
                found.append(mismatch)
                break
        else:
            if len(here) != len(there):
                step = min(len(here), len(there)) + 1
                found.append(Mismatch(where, step, "steps", (), "length"))
    return min(found, key=lambda mismatch: mismatch.step or 0, default=None)


def try_remedies(
    config: CommandConfig,
    steps: int,
    mismatch: Mismatch,
    info: ScriptInfo,
    ignored: Collection[str],
) -> list[Experiment]:
    """Repeat a pair of runs that differ under other conditions, until one makes them equal.

    Args:
        config: How the command is run.
        steps: How many steps.
        mismatch: Where the first pair differs.
        info: What it ran on.
        ignored: Columns that are not looked at.
    """
    done: list[Experiment] = []
    for change, remedy, task, variables in _conditions(steps, mismatch, info):
        try:
            pair = [run_trial(config, task, variables) for _ in range(2)]
            equal = compare_trials(pair[0], pair[1], ignored) is None
            outcome = "equal" if equal else "still differs"
        except AuditError as error:
            outcome = str(error)
        done.append(Experiment(change, outcome, remedy))
        if done[-1].helped:
            break
    return done


def _conditions(
    steps: int, mismatch: Mismatch, info: ScriptInfo
) -> Sequence[tuple[str, str, RowsTask, dict[str, str]]]:
    task = RowsTask(last_step=steps)
    found: list[tuple[str, str, RowsTask, dict[str, str]]] = []
    environment = info.environment
    if environment.variables.get("PYTHONHASHSEED", "random") == "random":
        remedy = (
            "the order of a set or dict of strings decides: sort it, or start python with "
            "PYTHONHASHSEED=0"
        )
        found.append(("PYTHONHASHSEED=0", remedy, task, {"PYTHONHASHSEED": "0"}))
    if kind_of(mismatch.component) != "state drift":
        return found
    threads = environment.determinism.get("torch threads", "1")
    remedy = "call torch.use_deterministic_algorithms(True)"
    if environment.determinism.get("cudnn benchmark") == "True":
        remedy += " and set torch.backends.cudnn.benchmark = False"
    n_threads = int(threads) if threads.isdecimal() else 1
    forced = replace(task, deterministic=True, threads=max(1, n_threads))
    found.append(("deterministic algorithms", remedy, forced, {}))
    if threads != "1":
        remedy = "set OMP_NUM_THREADS=1: a kernel's result depends on how its threads are timed"
        found.append(("one thread", remedy, task, dict.fromkeys(THREAD_VARIABLES, "1")))
    return found


def _without(row: Trace, ignored: Collection[str]) -> Trace:
    kept = {name: cell for name, cell in row.columns.items() if name not in ignored}
    return replace(row, columns=kept)


def _step_rows(rows: list[Trace]) -> list[Trace]:
    """Rows of steps, without that of the state at the end."""
    return [row for row in rows if any(row.columns.get("batch", b"")[:])]
