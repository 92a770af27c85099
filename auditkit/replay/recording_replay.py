"""Replay a recording: run the user's command again, and compare it with what was recorded.

Where it differs it is stopped, and the difference is looked into: how far the states are apart at a
recorded checkpoint, and whether further runs differ at the same row in the same way. Runs that
agree with each other but not with the record say that the record is of something else; runs
that disagree say that the training is not deterministic here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from auditkit.errors import AuditError, Undecided
from auditkit.evidence.comparison import (
    Mismatch,
    causing_step,
    environment_differences,
    mismatch_in_row,
    seeding_calls,
)
from auditkit.evidence.distances import Magnitude, measure
from auditkit.evidence.reader import RecordingEvidence
from auditkit.evidence.settings import SettingDifference
from auditkit.files import store
from auditkit.processes.row_server import RankStatus, ScriptInfo
from auditkit.records.environment import Environment
from auditkit.records.recording import RankRecord
from auditkit.records.report import Finding
from auditkit.records.task import RowsTask
from auditkit.replay.excuses import excusing, excusing_end
from auditkit.replay.live_comparison import (
    CommandConfig,
    LiveComparison,
    RankMismatch,
    find_differing_module,
    trace_modules,
)
from auditkit.replay.recorded_rows import RecordedRows

#: What a difference comes from.
OTHER_RECORD, NONDETERMINISM = "other", "nondeterminism"


@dataclass(frozen=True)
class CheckpointDistance:
    """How far the states of record and replay are apart.

    Attributes:
        step: Steps that had been taken when both states were written.
        components: A record for every component that differs.
    """

    step: int
    components: tuple[Magnitude, ...]


@dataclass(frozen=True)
class RecordingReplay:
    """What a replay found.

    Attributes:
        findings: What differs, for people; empty where nothing does.
        ranks: How many processes were compared.
        last_step: Last step that was compared.
        environment: What it ran on.
        environment_differences: What of it is not as recorded.
        partings: What differs, with its class; the first one is explained.
        cause: ``other``: the record is of something else; ``nondeterminism``; or None.
        runs: How often the command was run to tell the two apart.
        suspects: Code, arguments and loaders that are not as recorded.
        unseeded: Random streams that the processes began elsewhere in.
        module: The first module that differs in two runs of the step.
        distance: How far the states are apart, where a checkpoint allows to say.
        checkpoints: How many checkpoints were compared with what was passed here.
        settings: Hyper-parameters that differ where the first difference is.
    """

    findings: tuple[Finding, ...]
    ranks: int
    last_step: int
    environment: Environment
    environment_differences: tuple[str, ...]
    partings: tuple[Mismatch, ...] = ()
    cause: str | None = None
    runs: int = 1
    suspects: tuple[str, ...] = ()
    unseeded: tuple[str, ...] = ()
    module: str | None = None
    distance: CheckpointDistance | None = None
    checkpoints: int = 0
    settings: tuple[SettingDifference, ...] = ()

    @property
    def equal(self) -> bool:
        """Whether everything was as recorded."""
        return not self.findings


def replay_recording(
    evidence: RecordingEvidence,
    config: CommandConfig,
    report: Callable[[int], None] = lambda _: None,
    steps: int | None = None,
) -> RecordingReplay:
    """Replay a recording with the user's command.

    Args:
        evidence: The recording, which passed checks 1 to 5.
        config: The command, and how it is run. A recorded ``PYTHONHASHSEED`` is set beside it.
        report: Called with every step that was compared.
        steps: How many steps are compared, and the state after them; None for all.

    Raises:
        Undecided: When the command could not be run to its loop, or fails in it.
        CommandError: When it cannot be started.
    """
    recorded = RecordedRows(evidence)
    seed = recorded.manifest.environment.variables.get("PYTHONHASHSEED")
    variables = {**config.variables, **({} if seed is None else {"PYTHONHASHSEED": seed})}
    config = CommandConfig(config.runner, config.command, variables, config.output)
    with tempfile.TemporaryDirectory(prefix="auditkit-replay-") as scratch:
        return _Replay(recorded, config, Path(scratch), steps).run(report)


@dataclass
class _Explanation:
    """What further runs show of a difference."""

    cause: str | None = None
    runs: int = 1
    module: str | None = None
    comparisons: list[LiveComparison] = field(default_factory=list)


class _Replay:
    """One replay, and the runs that explain it."""

    def __init__(
        self, recorded: RecordedRows, config: CommandConfig, scratch: Path, steps: int | None
    ) -> None:
        self._recorded, self._config, self._scratch = recorded, config, scratch
        most = max(rank.steps for rank in recorded.manifest.ranks)
        if recorded.manifest.closed_as is not None:
            steps = min(steps or most, most)  # the command goes on where the recorded one died
        elif steps is not None and steps >= most:
            steps = None
        self._steps = steps
        self._n_checkpoints = 0
        self._is_whole = False  # whether every row was the recorded one

    def run(self, report: Callable[[int], None]) -> RecordingReplay:
        """Run the command, compare, explain."""
        comparison = LiveComparison(self._recorded, self._folder(0), report, commits=True)
        # The state after the last step is that of the row of the next one.
        comparison.run(self._config, RowsTask(last_step=self._steps and self._steps + 1))
        statuses = [comparison.server.by_rank[rank] for rank in sorted(comparison.server.by_rank)]
        differing = comparison.first
        self._is_whole = differing is None
        if differing is None:
            explanation = _Explanation()
            mismatches = (
                *self._end_mismatches(statuses),
                *self._start_mismatches(statuses, explanation),
            )
            return self._result(statuses, statuses[0], mismatches, explanation)
        explanation = self._explain(differing)
        return self._result(
            statuses,
            comparison.server.by_rank[differing.rank],
            (differing.mismatch,),
            explanation,
            *self._apart(differing, [comparison, *explanation.comparisons]),
        )

    def _end_mismatches(self, statuses: list[RankStatus]) -> Iterator[Mismatch]:
        size = len(self._recorded.manifest.ranks)
        if len(statuses) != size:
            yield Mismatch(
                "the command", None, f"{len(statuses)} processes, not {size},", (), "length"
            )
        for status in statuses:
            if self._steps is not None and status.step > self._steps:
                yield from self._recorded.compare_start(status)
            elif status.summary is None:
                raise Undecided(
                    f"the command ended after step {status.step} without closing its loop"
                )
            else:
                yield from self._recorded.compare_end(status)
            comparison = self._recorded.checkpoint_comparison(status)
            if comparison is not None:
                yield from comparison.mismatches()
                self._n_checkpoints += comparison.compared

    def _start_mismatches(
        self, statuses: list[RankStatus], found: _Explanation
    ) -> Iterator[Mismatch]:
        """Streams that began elsewhere, though every row is the recorded one.

        A script may seed them after its objects were wrapped. Where they stood before is then
        chance, and differs in the next run as well; a record of chance cannot be compared.
        """
        elsewhere = {status.rank: self._recorded.false_starts(status) for status in statuses}
        if not any(elsewhere.values()):
            return
        found.runs += 1
        again = LiveComparison(self._recorded)
        with suppress(AuditError):  # without a second run the first one stands
            again.run(self._config, RowsTask(last_step=1))
        for status in statuses:
            other = again.server.by_rank.get(status.rank)
            second = None if other is None or other.info is None else other.info.starts
            first = _info(status).starts
            names = [
                name
                for name in elsewhere[status.rank]
                if second is None or second.get(name) == first.get(name)
            ]
            if names:
                found.cause = OTHER_RECORD
                yield mismatch_in_row(status.where, 1, names, names)

    # Explaining

    def _explain(self, differing: RankMismatch) -> _Explanation:
        """Run the command again, up to the step, to see whether that gives the same."""
        found = _Explanation()
        step, caused_at = differing.row.first_step, causing_step(differing.mismatch)
        before = [at for at in self._recorded.checkpoints if at < caused_at]
        start = before[-1] if before else 0
        # A checkpoint that shows the difference itself was passed when that was noticed.
        dump = step - 1 if caused_at < step and step - 1 in self._recorded.checkpoints else None
        try:
            keys = [self._repeat(found, differing, start, at) for at in (dump, None)]
            if keys[0] == keys[1] != differing.row_key and start:
                # From a checkpoint the script may do something else than from its start.
                keys = [self._repeat(found, differing, 0, dump)] * 2
        except AuditError:
            return found  # the explanation is a help; that there is none changes no verdict
        found.cause = OTHER_RECORD if keys[0] == keys[1] == differing.row_key else NONDETERMINISM
        if found.cause == NONDETERMINISM and caused_at > 0:
            found.module = find_differing_module(
                lambda: trace_modules(
                    self._config, self._recorded, caused_at, start, differing.rank
                )
            )
        return found

    def _repeat(
        self, found: _Explanation, differing: RankMismatch, start: int, dump: int | None
    ) -> object:
        found.runs += 1
        comparison = LiveComparison(
            self._recorded, None if dump is None else self._folder(found.runs)
        )
        comparison.run(
            self._config, RowsTask(last_step=differing.row.first_step, dump_at=dump), start
        )
        row_key = None if comparison.first is None else comparison.first.row_key
        if dump is not None and row_key == differing.row_key:
            found.comparisons.append(comparison)
        return row_key

    def _apart(
        self, differing: RankMismatch, runs: list[LiveComparison]
    ) -> tuple[CheckpointDistance | None, tuple[SettingDifference, ...]]:
        """How far the states are apart, and the hyper-parameters that differ in the row."""
        settings = self._recorded.settings(differing.rank, differing.mismatch, differing.groups)
        for comparison in runs:
            status = comparison.server.by_rank.get(differing.rank)
            if comparison.dumped_at is None or status is None or not status.dumped:
                continue
            here = store.read_tensors(comparison.dump_path(differing.rank), what="state")
            there = self._recorded.snapshot(differing.rank, comparison.dumped_at)
            idle = self._recorded.idle_streams(status)
            distance = CheckpointDistance(comparison.dumped_at, measure(there, here, idle))
            held = self._recorded.held_settings(differing.mismatch, there, here, distance.step)
            return distance, (*settings, *held)
        return None, settings

    def _resumed_before(self, mismatches: tuple[Mismatch, ...]) -> str:
        if not mismatches or not mismatches[0].branch.startswith("rank "):
            return ""
        rank = self._recorded.rank(
            int(mismatches[0].branch.removeprefix("rank ").partition(",")[0])
        )
        return _resumption(mismatches[0], rank)

    def _folder(self, number: int) -> Path:
        folder = self._scratch / str(number)
        store.make_folder(folder)
        return folder

    # The result

    def _result(
        self,
        statuses: list[RankStatus],
        status: RankStatus,
        mismatches: tuple[Mismatch, ...],
        explanation: _Explanation,
        distance: CheckpointDistance | None = None,
        settings: tuple[SettingDifference, ...] = (),
    ) -> RecordingReplay:
        info = _info(status)
        recorded = self._recorded.manifest.environment
        environment = info.environment
        lines = environment_differences(recorded, environment)
        suspects = self._recorded.differing_code(status) if mismatches else ()
        starts = self._recorded.drawn_starts(status) if mismatches else ()
        resumed = self._resumed_before(mismatches)
        excuse = excusing_end if self._is_whole else excusing
        excused = [excuse(mismatch, lines) for mismatch in mismatches]
        cause = _cause(explanation, tuple(*excused[:1]), suspects, starts, resumed)
        findings = []
        for mismatch, excuses in zip(mismatches, excused, strict=True):
            is_first = mismatch is mismatches[0]
            parts = [*map(str, settings), str(mismatch), cause] if is_first else [str(mismatch)]
            text = "; ".join(filter(None, parts))
            code = 6 if excuses and explanation.cause != NONDETERMINISM else 1
            place = (mismatch.branch, mismatch.step, mismatch.component)
            findings.append(Finding(text, *place, code))
        steps = [
            min(t.step, rank.steps, self._steps or rank.steps)
            for t in statuses
            if (rank := self._recorded.rank(t.rank))
        ]
        first = mismatches[0].step if mismatches else None
        return RecordingReplay(
            findings=tuple(findings),
            ranks=len(statuses),
            last_step=max(1, min(steps, default=1) if first is None else first),
            environment=environment,
            environment_differences=lines,
            partings=mismatches,
            cause=explanation.cause,
            runs=explanation.runs,
            suspects=suspects,
            unseeded=starts,
            module=explanation.module,
            distance=distance,
            checkpoints=self._n_checkpoints,
            settings=settings,
        )


def _resumption(differing: Mismatch, rank: RankRecord | None) -> str:
    """The latest resumption before a difference, for people; empty where there is none."""
    step = None if differing.step is None else causing_step(differing)
    earlier = [one for one in (rank.resumptions if rank else ()) if step is None or one[0] < step]
    if not earlier:
        return ""
    at, proof = earlier[-1]
    return (
        f"the resume was not exact: the recording was resumed after step {at}"
        f"{f', {proof}' if proof else ''}"
    )


def _info(status: RankStatus) -> ScriptInfo:
    if status.info is None:
        raise Undecided("the loop took no step")
    return status.info


def _cause(
    explanation: _Explanation,
    environment: tuple[str, ...],
    suspects: tuple[str, ...],
    starts: tuple[str, ...],
    resumed: str,
) -> str:
    """What a difference comes from, in one line."""
    parts = []
    if explanation.cause == NONDETERMINISM:
        parts.append(f"nondeterminism: {explanation.runs} runs disagree with each other")
        if explanation.module is not None:
            parts.append(f"the first that differs in two runs of this step: {explanation.module}")
    elif environment:
        parts.append(f"environment differs ({environment[0]}), an edit cannot be excluded")
    elif explanation.cause == OTHER_RECORD:
        parts.append(
            f"{explanation.runs} runs agree with each other, so the record is of something else"
        )
    if starts:
        parts.append(
            f"{', '.join(starts)} {'begin' if len(starts) > 1 else 'begins'} elsewhere: "
            f"{seeding_calls(starts)} with the recorded seed, before the model is built"
        )
    if suspects:
        parts.append("; ".join(suspects))
    elif explanation.cause == OTHER_RECORD and not starts:
        parts.append("code, arguments and loaders are as recorded: other data, or edited evidence")
    if resumed:
        parts.append(f"or {resumed}" if parts else resumed)
    return "; ".join(parts)
