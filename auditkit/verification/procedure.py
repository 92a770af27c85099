"""The numbered checks of ``auditkit verify``, in the order in which they are made.

::

                                                                                    made in
     1 envelope      strict JSON, DSSE shape, schema of its version                 authenticity
     2 signature     a trusted key signed exactly these bytes                       authenticity
     3 artifacts     every listed file is regular, of the right size and SHA-256    authenticity
     4 consistency   plan, branches, traces and outcomes agree                      consistency
     5 RNG contract  streams are whole; branches of a seed start alike; seeds don't rng_contract,
                                                                                    replication
     6 order         every branch consumed the control's samples, or permuted ones  order
     7 fork          a branch differs from the control only in what it declares     fork
     8 replay        re-execution gives the recorded bits                           here
     9 noise floor   the replica equals the control; placebos exist                 noise_floor
    10 estimands     computed only if 1 to 9 passed                                 here

A new check gets its number and name in :data:`auditkit.records.report.CHECKS` (and in the schema
of reports, which counts ten), a module of its own that yields findings, its call in
:mod:`auditkit.verification.content`, and a line on what it looked at where the lines of the others
are (:meth:`CheckResults.ran`); a check without one counts as not made.

Checks that can run do run, so that the report lists every failure; nothing verified is a failure.
Code is executed only in check 8, which comes in as an argument: no torch is imported here. Of a
recording checks 1 to 5 and 8 are made (:mod:`auditkit.verification.recordings`).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from auditkit.errors import ArtifactError, AuditError
from auditkit.evidence.comparison import environment_differences
from auditkit.evidence.reader import RecordingEvidence, RunEvidence
from auditkit.evidence.verdicts import as_change, as_finding
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.records.declaration import DECLARATIONS, Declaration
from auditkit.records.estimate import EstimateTable
from auditkit.records.manifest import StudyManifest
from auditkit.records.opened import some_names
from auditkit.records.plan import as_typed
from auditkit.records.planned_declarations import declarations_of
from auditkit.records.plug_in import PlugIn
from auditkit.records.registration import PLAN_ROLE
from auditkit.records.report import Finding, VerificationReport
from auditkit.verification.authenticity import (
    COMPANIONS,
    OpenedManifest,
    Verification,
    open_manifest,
)
from auditkit.verification.causal_break import break_note
from auditkit.verification.consistency import check_parameters
from auditkit.verification.content import content_findings, is_as_long_as_planned
from auditkit.verification.earlier_versions import earlier_versions_note
from auditkit.verification.extension import check_extension, look_note
from auditkit.verification.own_data import departures
from auditkit.verification.own_perturbations import own_note, plug_in_notes
from auditkit.verification.program_code import (
    check_program,
    opened_report,
    refuse_unknown_arguments,
    unopened_finding,
)
from auditkit.verification.request import VerifyRequest
from auditkit.verification.segments import segments_note
from auditkit.verification.several_forks import (
    all_seeds,
    fork_runs,
    forks_note,
    in_table,
    is_replica,
    spelled_forks,
)

if TYPE_CHECKING:
    from auditkit.replay.request import Replayer, ReplayOutcome
    from auditkit.replay.sampling import Sample
    from auditkit.verification.authorities import Registrar
    from auditkit.verification.branch_tables import Estimator

__all__ = ["COMPANIONS", "VerifyRequest", "verify"]

_OF_RECORDINGS = "auditkit.verification.recordings"  # loaded for one only
_OF_ESTIMATES = "auditkit.verification.branch_tables"  # loaded for these only
_OF_REPLAYS = "auditkit.verification.sampled_replay"  # loaded for one only
_OF_PILOTS = "auditkit.verification.pilot_seeds"  # loaded where one is named
_OF_PLANS = "auditkit.verification.plan_binding"  # loaded where one is listed

Declarations = Mapping[str, Declaration]


def verify(
    path: Path,
    request: VerifyRequest,
    replayer: Replayer | None = None,
    estimator: Estimator | None = None,
    declarations: Mapping[str, Declaration] = DECLARATIONS,
    registrar: Registrar | None = None,
    plug_ins: Mapping[str, PlugIn] = MappingProxyType({}),
) -> VerificationReport:
    """Verify the manifest of a study or of a recording.

    Args:
        path: The manifest; the only file that a verifier is given by name.
        request: How.
        replayer: Re-executes branches (check 8); without one, nothing is replayed.
        estimator: Computes the estimands (check 10), where there was a replay.
        declarations: What each perturbation is, by the verifier's own table.
        registrar: Looks at a planned program's data again, where there was a replay.
        plug_ins: Installed plug-ins by the name of their perturbation.

    Returns:
        The report; its exit code is 0 only where nothing is wrong.

    Raises:
        StoreError: When there is no such file.
        UnknownArgument: When the verifier gives an argument that the factory does not take.
    """
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    opened = open_manifest(path, data)
    if isinstance(opened.manifest, StudyManifest):
        if request.replay != "none":
            refuse_unknown_arguments(path.parent, opened.manifest.program, request.arguments)
        replayer = None if request.replay == "none" else replayer
        callbacks = _Callbacks(replayer, estimator, declarations, registrar, plug_ins)
        run = RunEvidence(path.parent, opened.manifest)
        return _StudyVerification(opened, request, run, callbacks).report()
    if opened.manifest is not None:
        recording = RecordingEvidence(path.parent, opened.manifest)
        made = importlib.import_module(_OF_RECORDINGS).RecordingVerification
        report: VerificationReport = made(opened, request, recording).report()
        return report
    return Verification(opened, request).report()


@dataclass(frozen=True)
class _Callbacks:
    """What a study is verified with."""

    replayer: Replayer | None
    estimator: Estimator | None
    declarations: Mapping[str, Declaration]
    registrar: Registrar | None
    plug_ins: Mapping[str, PlugIn]


class _StudyVerification(Verification):
    """The state of the verification of a study."""

    def __init__(
        self,
        opened: OpenedManifest,
        request: VerifyRequest,
        run: RunEvidence,
        callbacks: _Callbacks,
    ) -> None:
        super().__init__(opened, request)
        self._run = run
        self._replayer = callbacks.replayer
        self._estimator = callbacks.estimator
        self._declarations = declarations_of(run.manifest.plan, callbacks.declarations)
        self._registrar = callbacks.registrar
        self._plug_ins = callbacks.plug_ins
        self._replay_outcome: ReplayOutcome | None = None
        self._departed: dict[str, int] = {}
        self._reused: str | None = None
        self._earlier = earlier_versions_note(run.manifest, self._declarations)
        self._another: str | None = None
        sparse = run.manifest.plan.evidence_note
        self._sparse = sparse and f"; {sparse}"

    def report(self) -> VerificationReport:
        """Make every check that can be made."""
        estimates, run, pilot = None, self._run, self._request.pilot
        if pilot is not None:
            made = importlib.import_module(_OF_PILOTS)
            made.refuse_itself(pilot, self._opened.statement_sha256)
            self._reused = made.reuse_note(pilot, run.manifest)
            self._another = made.difference_note(pilot, run.manifest)
            for note in filter(None, (self._another, self._reused)):
                self._checks.warn(10, note)
        if self._earlier is not None:
            self._checks.warn(7, self._earlier)
        self._check_signature()
        content = list(content_findings(run, self._declarations))  # which reads most files
        self._check_artifacts(run)
        self._check_content(run, content)
        self._check_replay(run)
        self._bind_plan(run)
        here = None if self._replay_outcome is None else self._replay_outcome.opened
        self._files_opened = opened_report(run.manifest.opened, here)
        if self._checks.passed(*range(1, 10)):
            estimates = self._estimands(run)
        elif self._replayer is None and not self._checks.failed(*range(1, 10)):
            self._checks.skip(10, "withheld: nothing was replayed")
        else:
            self._checks.skip(10, "withheld: computed only where checks 1 to 9 passed")
        return self._report(estimates)

    def _check_content(self, run: RunEvidence, found: list[tuple[int, Finding]]) -> None:
        """Make checks 4, 5, 6, 7 and 9."""
        for number, finding in found:
            self._checks.add(number, [finding])
        if not self._checks.failed(1, 2, 3):
            self._checks.add(4, list(check_extension(run, self._signers)))
        plan, seeds = run.manifest.plan, all_seeds(run.manifest)
        n_branches = sum(len(record.branches) for record in seeds)
        n_streams = sum(len(record.rng.streams) for record in seeds)
        of = f"{len(run.manifest.seeds)} seeds{forks_note(plan)}"
        self._checks.ran(4, f"{n_branches} branches of {of}, steps 1..{plan.horizon}{self._sparse}")
        self._checks.ran(5, f"{n_streams} streams of {of}")
        said = segments_note(plan) + self._own_data(run)
        self._checks.ran(6, f"{n_branches} branches, every step{said}")
        self._summarise_pairs(run, {})

    def _own_data(self, run: RunEvidence) -> str:
        """Which branches consumed data that their own course made."""
        if self._checks.failed(1, 4, 6):
            return ""
        for one in fork_runs(run):
            found = departures(one, self._declarations)
            self._departed |= {in_table(name, one, run): count for name, count in found.items()}
        names = [as_typed(name) for name in self._departed]
        return f"; made other data by their own course: {some_names(names)}" if names else ""

    def _summarise_pairs(self, run: RunEvidence, rerun: Mapping[int, tuple[str, ...]]) -> None:
        """Say what checks 7 and 9 rest on: which branches of which seed were re-run here."""
        plan, seeds = run.manifest.plan, all_seeds(run.manifest)
        n_all = sum(len(record.branches) for record in seeds)
        n_rerun = sum(len(names) for names in rerun.values())
        changes = {0: "; that changes are as declared was not replayed", n_all - len(seeds): ""}
        partly = f"; that changes are as declared was replayed for {n_rerun}"
        at_fork = f"{n_all} branches against their control after {spelled_forks(plan)}"
        at_fork += break_note(plan) + changes.get(n_rerun, partly) + own_note(plan)
        self._checks.ran(7, at_fork)
        n_replicas = sum(is_replica(name) for names in rerun.values() for name in names)
        by_whom = {0: "as the author re-ran it", len(seeds): "re-run here"}
        of = "forks" if plan.further_forks else "seeds"
        partly = f"re-run here for {n_replicas} of {len(seeds)} {of}"
        n_placebos = len(plan.placebo_names) * len(seeds)
        nudged = f"{n_placebos} placebo{'' if n_placebos == 1 else 's'}{self._sparse}"
        self._checks.ran(9, f"replica = control, {by_whom.get(n_replicas, partly)}; {nudged}")

    def _check_replay(self, run: RunEvidence) -> None:
        """Make check 8."""
        checks = self._checks
        if self._replayer is None:
            checks.skip(8, "nothing was replayed (--replay none)")
            return
        reason = self._why_not_executed(run)
        if reason is not None:
            checks.skip(8, reason)
            return
        command = self._request.command
        if run.manifest.program.command and not command:
            checks.skip(8, "a study of a script; give the command: verify MANIFEST -- COMMAND")
            self._replayer = None
            return
        if not command and not self._may_execute():
            text = "the code is signed by somebody else's key, too; read it, give --allow-code"
            if not (self._signer and self._signer.own):
                text = "the code is signed by somebody else's key; read it, then give --allow-code"
            checks.add(8, [Finding(text, exit_code=6)])
            checks.leave_open(8, "needs consent")
            return
        try:
            made = importlib.import_module(_OF_REPLAYS)
            outcome, sample = made.replay_sample(run, self._request, self._replayer)
        except ArtifactError as error:
            checks.add(8, [as_change(error)])
            return
        checks.add(8, outcome.findings)
        if not outcome.environments:
            checks.leave_open(8, "could not run")
        for text in (*outcome.warnings, *plug_in_notes(run.manifest, self._plug_ins)):
            checks.warn(8, text)
        self._replay_outcome, self._lacking = outcome, outcome.lacking
        self._replay_text = sample.text if outcome.environments else "nothing could be replayed"
        self._replayed = "all" if sample.is_everything else "some"
        self._environment = next(iter(outcome.environments), None)
        self._distances = outcome.distances
        self._check_unopened(run, outcome, sample)
        self._check_tolerance(outcome, sample)
        recorded = run.manifest.environment
        self._differences = environment_differences(recorded, *outcome.environments)
        rerun = {
            seed: tuple(name for name in names if (seed, name) in outcome.outcomes)
            for seed, names in sample.choice.items()
        }
        self._summarise_pairs(run, rerun)
        checks.ran(8, f"{self._replay_text}{self._sparse}")

    def _why_not_executed(self, run: RunEvidence) -> str | None:
        if self._checks.failed(1, 2, 3):
            return "code is executed only where checks 1 to 3 passed"
        if any(check_program(run.manifest.program)):
            return "what would be executed is not what the manifest lists, see check 4"
        if any(check_parameters(run.manifest.plan, self._declarations)):
            return "no run has such a plan, see check 4"
        if not is_as_long_as_planned(run):
            return "the traces are not of the plan's steps, see check 4"
        return None

    def _check_unopened(self, run: RunEvidence, outcome: ReplayOutcome, sample: Sample) -> None:
        """Name listed files that nothing here opened; what was not run may have opened them."""
        recorded = run.manifest.opened
        finding = unopened_finding(recorded, outcome.opened)
        names = outcome.opened.unopened(recorded)
        if finding is not None and sample.is_everything and not outcome.findings:
            self._checks.add(8, [finding])
        elif names and outcome.environments:
            more = "" if sample.is_everything else "; not everything was replayed"
            self._checks.warn(8, f"listed and not opened here: {some_names(names)}{more}")

    def _check_tolerance(self, outcome: ReplayOutcome, sample: Sample) -> None:
        """Call a replay close, or say why it is not; what was not drawn may be further away."""
        tolerance = self._request.tolerance
        if tolerance is None or not outcome.findings:
            return
        self._close = outcome.close and sample.is_everything
        if self._close:
            return
        text = f"not close within {tolerance:g}: something else than rounding differs"
        probes = [distance for distance in outcome.distances if distance.kind == "probe"]
        unknown = next((d for d in probes if d.total_variation is None), None)
        gaps = [(d.total_variation or 0.0, d) for d in probes]
        largest = max(gaps, key=lambda gap: gap[0], default=None)
        if largest is not None and largest[0] > tolerance:
            where = f"{largest[1].where}, {largest[1].name}"
            text = f"not close within {tolerance:g}: {where} is {largest[0]:.3g} away"
        elif unknown is not None:
            where = f"{unknown.where}, {unknown.name}"
            text = f"not called close within {tolerance:g}: of {where} no distance can be told"
        elif not sample.is_everything:
            text = f"not called close within {tolerance:g}: not every branch was replayed"
        self._checks.warn(8, text)

    def _bind_plan(self, run: RunEvidence) -> None:
        """Say what the plan that was signed before the run is worth."""
        is_planned = any(file.role == PLAN_ROLE for file in run.manifest.files)
        if not is_planned or self._checks.failed(1, 2, 3):
            return
        # Whatever builds the program executes it: the same consent is asked for as for a replay.
        replayed = self._replay_outcome is not None and not run.manifest.program.command
        registrar = self._registrar if replayed and self._may_execute() else None
        try:
            bind_plan = importlib.import_module(_OF_PLANS).bind_plan
            self._plan = bind_plan(run, self._signers, self._request.authorities, registrar)
        except ArtifactError as error:
            self._checks.add(3, [as_change(error)])

    def _may_execute(self) -> bool:
        """Whether the recorded code is the verifier's own, or its execution was asked for."""
        return self._request.allow_code or self._is_own

    def _estimands(self, run: RunEvidence) -> EstimateTable | None:
        """Make check 10, from recomputed tables where there are any, recorded ones elsewhere."""
        if self._estimator is None or self._replay_outcome is None:
            self._checks.skip(10, "withheld: nothing was replayed")
            return None
        made = importlib.import_module(_OF_ESTIMATES)
        try:
            recomputed = self._replay_outcome.outcomes
            table: EstimateTable = made.estimates(run, self._estimator, recomputed, self._departed)
        except AuditError as error:
            self._checks.add(10, [as_finding(error)])
            return None
        left_out = made.why_no_pair(run, table)
        if left_out is not None:
            self._checks.add(10, [Finding(left_out)])
            self._checks.sum_up(10, "every control or treatment diverged")
            return None
        near = made.near_copies(table.distances)
        if near is not None:
            self._checks.warn(10, near)
        notes = (self._another, self._reused, near, look_note(run.manifest), self._earlier)
        table = replace(table, notes=(*filter(None, notes), *table.notes))
        label = "" if self._replayed == "all" else "; not every table was recomputed"
        if self._request.pilot is not None and self._reused is None:
            label += f"; {importlib.import_module(_OF_PILOTS).NONE_AGAIN}"
        self._checks.ran(10, f"{len(table.rows)} estimates{label}")
        return table
