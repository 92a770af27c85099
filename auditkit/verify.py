"""The numbered checks of ``auditkit verify``.

::

     1 envelope      strict JSON, DSSE shape, schema of its version
     2 signature     a trusted key signed exactly these bytes
     3 artifacts     every listed file is a regular file with the right size and SHA-256
     4 consistency   plan, branches, traces and outcomes agree
     5 RNG contract  streams are whole; branches of a seed start alike; seeds do not
     6 order         every branch consumed the control's samples, or a declared permutation
     7 fork          a branch differs from the control in what it declares, and only there
     8 replay        re-execution gives the recorded digests and outcomes, bit for bit
     9 noise floor   the replica equals the control; placebos exist
    10 estimands     computed only if 1 to 9 passed

Checks that can run do run, so that the report lists every failure; nothing verified is a
failure. Code is executed only in check 8, which comes in as an argument: this module imports
no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from auditkit import canonical, store
from auditkit.content import branch_tables, content_findings
from auditkit.errors import AuditError
from auditkit.evidence import RunEvidence
from auditkit.judgement import Ledger, as_finding, exit_code_of, verdict_of
from auditkit.manifests import from_statement
from auditkit.outcomes import SeedOutcomes
from auditkit.records.estimate import EstimateTable
from auditkit.records.manifest import MANIFEST_NAME, SIGNER_NAME, StudyManifest
from auditkit.records.perturbation import DECLARATIONS, Declaration
from auditkit.records.plan import StudyPlan
from auditkit.records.report import Finding, VerificationReport
from auditkit.replay import ReplayOutcome, ReplayRequest
from auditkit.sampling import draw
from auditkit.signing import Envelope, TrustedKey, check_signatures, open_envelope

#: Files beside a manifest that it cannot list, because they are made from it.
COMPANIONS = (MANIFEST_NAME, SIGNER_NAME, "CHECKLIST.md", "report.json")

Replayer = Callable[[RunEvidence, ReplayRequest], ReplayOutcome]
Estimator = Callable[[Sequence[SeedOutcomes], StudyPlan], EstimateTable]


@dataclass(frozen=True)
class VerifyRequest:
    """How to verify.

    Attributes:
        trusted: Keys that count.
        replay: ``all``, ``none``, or how many branches to draw.
        replay_seed: Repeats a draw; then no odds are stated, since the author may know it.
        strict: Whether unlisted files are failures.
        allow_code: Whether code signed by somebody else's key may be executed.
        arguments: Arguments of the factory that replace recorded ones.
        jobs: Seeds that are replayed at the same time; None for as many as cores allow.
    """

    trusted: Sequence[TrustedKey]
    replay: str | int = "all"
    replay_seed: int | None = None
    strict: bool = False
    allow_code: bool = False
    arguments: Mapping[str, str] = field(default_factory=dict)
    jobs: int = 1


def verify(
    path: Path,
    request: VerifyRequest,
    replayer: Replayer | None = None,
    estimator: Estimator | None = None,
    declarations: Mapping[str, Declaration] = DECLARATIONS,
) -> VerificationReport:
    """Verify a study's manifest.

    Args:
        path: The manifest; the only file that a verifier is given by name.
        request: How.
        replayer: Re-executes branches (check 8); without one, nothing is replayed.
        estimator: Computes the estimands (check 10), where there was a replay.
        declarations: What each perturbation is, by the verifier's own table.

    Returns:
        The report; its exit code is 0 only where nothing is wrong.

    Raises:
        StoreError: When there is no such file.
    """
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    machinery = _Machinery(None if request.replay == "none" else replayer, estimator, declarations)
    return _Verification(path, data, request, machinery).report()


@dataclass(frozen=True)
class _Machinery:
    """What a verification is made with."""

    replayer: Replayer | None
    estimator: Estimator | None
    declarations: Mapping[str, Declaration]


class _Verification:
    """The state of one verification."""

    def __init__(
        self,
        path: Path,
        data: bytes,
        request: VerifyRequest,
        machinery: _Machinery,
    ) -> None:
        self._path = path
        self._data = data
        self._request = request
        self._replayer = machinery.replayer
        self._estimator = machinery.estimator
        self._declarations = machinery.declarations
        self._ledger = Ledger()
        self._signer: TrustedKey | None = None
        self._replayed = "none"
        self._replay_text = "nothing was replayed"
        self._differences: tuple[str, ...] = ()
        self._replay_outcome: ReplayOutcome | None = None

    def report(self) -> VerificationReport:
        """Make every check that can be made."""
        estimates = None
        opened = self._envelope()
        if opened is not None:
            envelope, manifest = opened
            self._signature(envelope)
            run = RunEvidence(self._path.parent, manifest)
            self._artifacts(run)
            self._content(run)
            self._replay(run)
            if self._ledger.passed(*range(1, 10)):
                estimates = self._estimands(run)
            elif self._replayer is None and not self._ledger.failed(*range(1, 10)):
                self._ledger.skip(10, "withheld: nothing was replayed")
            else:
                self._ledger.skip(10, "withheld: computed only where checks 1 to 9 passed")
        results = self._ledger.results()
        exit_code = exit_code_of(results)
        return VerificationReport(
            verdict=verdict_of(exit_code, replayed=self._replayed),
            exit_code=exit_code,
            manifest_sha256=hashlib.sha256(self._data).hexdigest(),
            signed_by=self._signer.fingerprint if self._signer else None,
            trust=self._trust_text(),
            replay=self._replay_text,
            checks=results,
            estimates=estimates,
            environment_differences=self._differences,
        )

    def _envelope(self) -> tuple[Envelope, StudyManifest] | None:
        name = self._path.name
        try:
            envelope = open_envelope(self._data, what=name)
            manifest = from_statement(envelope.payload, what=name)
        except AuditError as error:
            self._ledger.add(1, [_malformed(error)])
            return None
        self._ledger.ran(1, f"in-toto Statement v1, schema {manifest.schema_version}")
        return envelope, manifest

    def _signature(self, envelope: Envelope) -> None:
        try:
            outcome = check_signatures(envelope, self._request.trusted)
        except AuditError as error:
            self._ledger.add(2, [as_finding(error)])
            return
        self._signer = outcome.signer
        self._ledger.ran(2, f"signed by {outcome.signer.fingerprint}")

    def _artifacts(self, run: RunEvidence) -> None:
        ledger, total = self._ledger, 0
        for file in run.manifest.files:
            try:
                found = store.file_sha256(run.root, file.name, expected_size=file.size)
                total += file.size
                if found != file.sha256:
                    finding = Finding(
                        f"sha256 is {found}, the manifest says {file.sha256}", file.name
                    )
                    ledger.add(3, [finding])
            except AuditError as error:
                ledger.add(3, [replace(as_finding(error), exit_code=1)])
        listed = {file.name for file in run.manifest.files}
        unlisted = [
            name
            for name in store.list_files(run.root)
            if name not in listed and name not in COMPANIONS
        ]
        for name in unlisted:
            if self._request.strict:
                ledger.add(3, [Finding("the manifest lists no such file", name)])
            else:
                ledger.warn(3, f"{name}: lies here but is not listed")
        ledger.ran(3, f"{len(listed)} files, {total:,} bytes")

    def _content(self, run: RunEvidence) -> None:
        for number, finding in content_findings(run, self._declarations):
            self._ledger.add(number, [finding])
        plan, seeds = run.manifest.plan, run.manifest.seeds
        n_branches = sum(len(record.branches) for record in seeds)
        n_streams = sum(len(record.rng.streams) for record in seeds)
        self._ledger.ran(4, f"{n_branches} branches of {len(seeds)} seeds, steps 1..{plan.horizon}")
        self._ledger.ran(5, f"{n_streams} streams of {len(seeds)} seeds")
        self._ledger.ran(6, f"{n_branches} branches, every step")
        self._summarise_pairs(run, {})

    def _summarise_pairs(self, run: RunEvidence, rerun: Mapping[int, tuple[str, ...]]) -> None:
        """Say what checks 7 and 9 rest on: which branches of which seed were re-run here."""
        plan, seeds = run.manifest.plan, run.manifest.seeds
        n_all = sum(len(record.branches) for record in seeds)
        n_rerun = sum(len(names) for names in rerun.values())
        changes = {0: "; that changes are as declared was not replayed", n_all - len(seeds): ""}
        partly = f"; that changes are as declared was replayed for {n_rerun}"
        at_fork = f"{n_all} branches against their control at step {plan.fork_at + 1}"
        self._ledger.ran(7, at_fork + changes.get(n_rerun, partly))
        n_replicas = sum("replica" in names for names in rerun.values())
        by_whom = {0: "as the author re-ran it", len(seeds): "re-run here"}
        partly = f"re-run here for {n_replicas} of {len(seeds)} seeds"
        n_placebos = len(plan.placebo_names) * len(seeds)
        floor = f"replica = control, {by_whom.get(n_replicas, partly)}; {n_placebos} placebos"
        self._ledger.ran(9, floor)

    def _replay(self, run: RunEvidence) -> None:
        ledger = self._ledger
        if self._replayer is None:
            ledger.skip(8, "nothing was replayed (--replay none)")
            return
        if ledger.failed(1, 2, 3):
            ledger.skip(8, "code is executed only where checks 1 to 3 passed")
            return
        if not (self._signer and self._signer.own) and not self._request.allow_code:
            text = "the code is signed by somebody else's key; read it, then give --allow-code"
            ledger.add(8, [Finding(text, exit_code=6)])
            return
        sample = draw(run.manifest, self._request.replay, self._request.replay_seed)
        self._replay_text = sample.text
        request = ReplayRequest(sample.choice, self._request.arguments, self._request.jobs)
        outcome = self._replayer(run, request)
        ledger.add(8, outcome.findings)
        self._replay_outcome = outcome
        if not outcome.environments:
            self._replay_text = "nothing could be replayed"
        self._replayed = "all" if sample.is_everything else "some"
        self._differences = _environment_lines(run, outcome)
        self._summarise_pairs(run, sample.choice)
        ledger.ran(8, self._replay_text)

    def _estimands(self, run: RunEvidence) -> EstimateTable | None:
        """Estimates from recomputed tables where there are any, from recorded ones elsewhere."""
        if self._estimator is None or self._replay_outcome is None:
            self._ledger.skip(10, "withheld: nothing was replayed")
            return None
        try:
            outcomes = branch_tables(run, self._replay_outcome.outcomes)
            table = self._estimator(outcomes, run.manifest.plan)
        except AuditError as error:
            self._ledger.add(10, [as_finding(error)])
            return None
        if not any(row.n for row in table.rows):
            self._ledger.add(10, [Finding("no pair is left: every control or treatment diverged")])
            return None
        label = "" if self._replayed == "all" else "; not every table was recomputed"
        self._ledger.ran(10, f"{len(table.rows)} estimates{label}")
        return table

    def _trust_text(self) -> str:
        if self._signer is None:
            return "no trusted signature"
        source = Path(self._signer.source)
        if self._signer.own and source.name == "allowed_signers":
            return "self-signed on this machine"
        return f"trusted by {source}"


def _malformed(error: AuditError) -> Finding:
    """Whatever is wrong with the envelope, the file is not what its name says."""
    return replace(as_finding(error), exit_code=5)


def _environment_lines(run: RunEvidence, outcome: ReplayOutcome) -> tuple[str, ...]:
    lines: dict[str, None] = {}
    recorded = run.manifest.environment
    for here in outcome.environments:
        shared = {name: here.packages.get(name, v) for name, v in recorded.packages.items()}
        lines.update(dict.fromkeys(recorded.differences(replace(here, packages=shared))))
    return tuple(lines)
