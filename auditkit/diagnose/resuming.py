"""Would a resume of this command be exact? A checkpoint, a fresh process, and a comparison.

The same test that a resumed recording makes of itself, without a kill: the command runs to a step
and its state is written; run again it goes on from there, and every row must be the one of a run
that was never interrupted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from auditkit.diagnose.trials import Trial, run_trial
from auditkit.errors import AuditError
from auditkit.evidence.comparison import Mismatch, compare_rows
from auditkit.records.differences import resume_reason, resume_remedy
from auditkit.records.evidence import Trace
from auditkit.records.task import RowsTask
from auditkit.replay.live_comparison import CommandConfig


@dataclass(frozen=True)
class ResumeTrial:
    """How a resume went.

    Attributes:
        step: The step after which the checkpoint was taken.
        rows: Rows after it that were compared.
        parting: Where it differs first, or None.
        refused: Why no checkpoint could be taken or gone on from, or None.
    """

    step: int
    rows: int = 0
    parting: Mismatch | None = None
    refused: str | None = None

    @property
    def exact(self) -> bool:
        """Whether every row was given again."""
        return self.parting is None and self.refused is None


def try_resume(
    config: CommandConfig, whole: Trial, idle: Collection[str] = ()
) -> ResumeTrial | None:
    """Resume the command in the midst of its steps.

    Args:
        config: The command, and how it is run.
        whole: A run that was not interrupted, of a command that is repeatable.
        idle: Random streams that nothing draws from, and that are not looked at.

    Returns:
        None where it has too few steps.
    """
    step = whole.steps // 2
    if step < 1:
        return None
    with tempfile.TemporaryDirectory(prefix="auditkit-doctor-") as scratch:

        def path_of(rank: int) -> str:
            return str(Path(scratch) / f"state-{rank}.safetensors")

        dump = RowsTask(last_step=step + 1, dump_at=step)
        # A loop that ended by itself sent the state at its end, too, after its last step.
        last = max(row.first_step for rows in whole.rows.values() for row in rows)
        go_on = RowsTask(first_step=step + 1, last_step=last)
        try:
            begun = run_trial(config, lambda rank: replace(dump, dump_to=path_of(rank)))
            resumed = run_trial(
                config,
                lambda rank: replace(
                    go_on, checkpoint=path_of(rank), drawn=begun.by_rank[rank].drawn
                ),
            )
        except AuditError as error:
            return ResumeTrial(step, refused=str(error))
    found = [_compare(rank, step, whole, resumed, idle) for rank in sorted(whole.rows)]
    parting = min((one for one in found if one), key=lambda one: one.step or 0, default=None)
    return ResumeTrial(step, whole.steps - step, parting)


def what_to_register(trial: ResumeTrial, unregistered: str | None) -> str:
    """What to do about a resume that was not exact."""
    if trial.parting is None:
        return ""
    component = trial.parting.component
    known = f" ({unregistered})" if unregistered else ""
    return f"{resume_reason(component)}{known}; give it to wrap: {resume_remedy(component)}"


def _compare(
    rank: int, step: int, whole: Trial, resumed: Trial, idle: Collection[str]
) -> Mismatch | None:
    where = f"rank {rank}"
    here = {row.first_step: row for row in resumed.rows.get(rank, [])}
    for row in whole.rows[rank]:
        if row.first_step <= step:
            continue
        if row.first_step not in here:
            return Mismatch(where, row.first_step, "steps", (), "length")
        mismatch = compare_rows(where, _without(row, idle), _without(here[row.first_step], idle))
        if mismatch is not None:
            return mismatch
    return None


def _without(row: Trace, idle: Collection[str]) -> Trace:
    """Its other components; a loss that is logged may be a mean that the loop keeps."""
    kept = {name: cell for name, cell in row.columns.items() if name not in idle}
    return replace(row, loss_bits=bytes(len(row.loss_bits)), columns=kept)
