"""Run a study: the five stages over every seed, then one signed manifest.

::

    for each seed, in processes of their own:
        trunk      steps 1..t0..T: trunk, fork, control
        branches   from the fork's file, each in its own: placebos, treatments, replica

Before that the program is tried once (:mod:`auditkit.study.preflight`). While the study goes on
every file ends in ``.partial`` and there is no manifest; a trunk and every branch are noted as they
end (:mod:`auditkit.files.run_parts`), and ``resume`` rechecks them by SHA-256 and runs the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from auditkit.errors import PlanError, StoreError
from auditkit.files import store
from auditkit.files.run_folder import (
    FinishedSeed,
    Journal,
    RunFolder,
    merged_code,
    merged_environment,
)
from auditkit.files.run_parts import seed_name
from auditkit.formats.redaction import redact_text
from auditkit.formats.statements import to_statement
from auditkit.observe.machine.code import git_state
from auditkit.observe.machine.opened import changed_files
from auditkit.processes.worker_pool import Workers
from auditkit.records.fork_points import views
from auditkit.records.manifest import (
    CODE_FOLDER,
    EARLIER_ROLE,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    SIGNER_NAME,
    CodeFile,
    FileRecord,
    FurtherFork,
    Producer,
    ProgramRecord,
    RunTimes,
    SeedRecord,
    StudyManifest,
)
from auditkit.records.opened import merged_opened, some_names, unhashed_notes
from auditkit.records.registration import PLAN_NAME, PLAN_ROLE
from auditkit.records.replication import equal_seeds
from auditkit.records.results import TrunkResult
from auditkit.signing.envelopes import sign_statement
from auditkit.signing.keys import public_line
from auditkit.signing.trust import SigningKey
from auditkit.study.divergence import divergence_note
from auditkit.study.plug_ins import plug_ins_of
from auditkit.study.preflight import settled, try_program
from auditkit.study.replicas import refuse_parted_branches, refuse_unchanged_data
from auditkit.study.request import StudyRequest
from auditkit.study.samples import unmeasured_samples
from auditkit.study.seed_runs import Report, run_seeds, workers_of
from auditkit.study.unmoved import unmoved_notes
from auditkit.study.variables import unreplayed_variables
from auditkit.version import __version__

Warn = Callable[[str], None]


def prepare_study(
    request: StudyRequest, report: Report = lambda _: None, workers: Workers | None = None
) -> StudyRequest:
    """Try the program, and settle what the plan leaves open.

    Args:
        request: What to run.
        report: Called with the progress.
        workers: As of :func:`run_study`.

    Returns:
        The same with a preflight.

    Raises:
        PlanError: When a perturbation cannot be applied to the program.
        AuditError: Whatever else the study would end in.
    """
    _require_folder(request)
    with workers_of(request, workers) as running:
        found = try_program(running, request.program, request.plan, report, seed=request.seeds[0])
    if request.earlier is not None:
        request.earlier.require_same_program(found)
    prepared = replace(request, plan=settled(request.plan, found), preflight=found)
    RunFolder(request.out).require_same(_journal(prepared))
    return prepared


def run_study(
    request: StudyRequest,
    key: SigningKey,
    report: Report = lambda _: None,
    warn: Warn = lambda _: None,
    workers: Workers | None = None,
) -> Path:
    """Run a study to its signed manifest.

    Args:
        request: What to run; prepared here where it is not (:func:`prepare_study`).
        key: What to sign with.
        report: Called with the progress of every worker, from several threads.
        warn: Called with what is no error, but will not verify.
        workers: Run the program; stopped only where something went wrong. By default they are
            started here. Of no use to a script.

    Returns:
        Path of the manifest.

    Raises:
        ReplicaMismatch: When a branch that nothing was changed in parts from its control; the
            manifest is there all the same, to be verified and compared.
        AuditError: Whatever else went wrong; finished trunks and branches are kept for ``resume``.
    """
    if request.jobs < 1:
        raise PlanError(f"jobs must be at least 1, not {request.jobs}")
    folder = RunFolder(request.out)
    with folder.locked():
        if request.preflight is None:
            request = prepare_study(request, report, workers)
        _require_folder(request)
        started = folder.begin(_journal(request))
        finished = run_seeds(request, folder, report, workers)
        _warn_of_seeds(request, finished, warn)
        manifest = _manifest(request, finished, started)
        _warn_of_manifest(request, manifest, warn)
        envelope = sign_statement(to_statement(manifest), key.key)
        signer = f"{public_line(key.key)}\n".encode()
        folder.publish(manifest.files, {SIGNER_NAME: signer, MANIFEST_NAME: envelope})
    if not request.command:
        _warn_of_variables(request.out, manifest, warn)
    moved = tuple(dict.fromkeys(name for seed in finished for name in seed.trunk.moved))
    for view in views(manifest):
        changed = partial(changed_files, manifest.opened, request.program)
        refuse_parted_branches(request.out, view, moved, changed)
        refuse_unchanged_data(request.out, view)
    return request.out / MANIFEST_NAME


def _require_folder(request: StudyRequest) -> None:
    folder = RunFolder(request.out)
    if request.earlier is None:
        folder.require_free(resume=request.resume)
    elif folder.finished_manifest(resume=request.resume) != request.earlier.data:
        raise StoreError("the study has changed since it was read", where=str(request.out))


def _journal(request: StudyRequest) -> Journal:
    found = request.preflight
    assert found is not None  # noqa: S101 # prepared above
    return Journal(
        plan=request.plan,
        target=request.program.target,
        arguments=dict(request.program.arguments),
        started=_now(),
        plan_sha256=_sha256(request.plan_file),
        code=found.code,
        data={} if found.opened is None else found.opened.hashed,
        built=None if request.command else found.built,
        environment=found.environment,
        seeds=request.seeds,
        extends_sha256=_sha256(None if request.earlier is None else request.earlier.data),
    )


def _warn_of_seeds(request: StudyRequest, finished: Sequence[FinishedSeed], warn: Warn) -> None:
    for line in () if request.preflight is None else request.preflight.undecided:
        warn(line)
    if text := unmeasured_samples(request.plan, finished[0]):
        warn(text)
    other = next((s for s in finished if s.trunk.observed != finished[0].trunk.observed), None)
    if other is not None:
        warn(
            f"this run will not verify: seed {other.seed} has other probes or measures than seed "
            f"{finished[0].seed}; let the factory's seed not decide which there are"
        )
    notes = (note for seed in finished for note in (*seed.trunk.notes, *seed.branches.notes))
    for note in dict.fromkeys(notes):
        warn(note)


def _warn_of_manifest(request: StudyRequest, manifest: StudyManifest, warn: Warn) -> None:
    """Say what a reviewer will be told, while there is time to mend it."""
    for note in unhashed_notes(manifest.opened):
        warn(note)
    for records in (manifest.seeds, *(fork.seeds for fork in manifest.further)):
        if gone := divergence_note(records):
            warn(gone)
    for note in unmoved_notes(manifest.seeds, manifest.plan.horizon):
        warn(note)
    for text in manifest.environment.contradictions(request.plan.threads):
        warn(f"this run will not verify: {text}; leave it to the plan")
    for (first, again), names in equal_seeds(manifest.seeds).items():
        warn(
            f"this run will not verify: seeds {first} and {again} are one seed, with the same "
            f"{', '.join(names)}; let the factory's seed decide what is drawn"
        )


def _warn_of_variables(out: Path, manifest: StudyManifest, warn: Warn) -> None:
    """Say that a replay will lack what the program's code looks for."""
    code = (store.read_bytes(out / CODE_FOLDER / file.name) for file in manifest.program.code)
    if names := unreplayed_variables(code):
        warn(
            f"the program's code reads environment variables that a replay does not have: "
            f"{some_names(names)}; take an argument instead, or tell verifiers to give --env NAME"
        )


def _manifest(request: StudyRequest, finished: list[FinishedSeed], started: str) -> StudyManifest:
    earlier = None if request.earlier is None else request.earlier.manifest
    code = merged_code(finished, () if earlier is None else earlier.program.code)
    forks = request.plan.forks
    seeds, *others = (
        tuple(_seed_record(seed) for seed in finished if seed.fork in (fork, None))
        for fork in forks
    )
    further = zip(request.plan.further_forks, others, strict=True)
    opened = [seed.trunk.opened for seed in finished]
    return StudyManifest(
        schema_version=SCHEMA_VERSION,
        producer=Producer("auditkit", __version__),
        run=RunTimes.ending(started, _now()),
        plan=request.plan,
        program=_program(request, code, finished[0].trunk),
        environment=merged_environment(finished, None if earlier is None else earlier.environment),
        seeds=seeds if earlier is None else (*earlier.seeds, *seeds),
        files=_files(request, finished, code),
        opened=merged_opened(opened if earlier is None else [earlier.opened, *opened]),
        extends=() if request.earlier is None else request.earlier.extends,
        plug_ins=plug_ins_of(request.plan),
        further=tuple(FurtherFork(fork, records) for fork, records in further),
    )


def _program(
    request: StudyRequest, code: tuple[CodeFile, ...], trunk: TrunkResult
) -> ProgramRecord:
    module_name, _, _ = request.program.target.partition(":")
    source = module_name if module_name.endswith(".py") else module_name.partition(".")[0]
    if request.command:  # the script is the first of its files that the command names
        source = next((part for part in request.command if part.endswith(".py")), "")
    commit, dirty = git_state(Path(request.program.folder), source)
    return ProgramRecord(
        target=request.program.target,
        arguments=request.program.arguments,
        description=trunk.program,
        git_commit=commit,
        git_dirty=dirty,
        code=code,
        command=tuple(map(redact_text, request.command)),
        observed=trunk.observed,
    )


def _files(
    request: StudyRequest, finished: Sequence[FinishedSeed], code: Sequence[CodeFile]
) -> tuple[FileRecord, ...]:
    files = [file for seed in finished for file in seed.files]
    if request.plan_file is not None:
        files.append(_keep(request.out, PLAN_NAME, PLAN_ROLE, request.plan_file))
    if request.earlier is not None:
        name = request.earlier.extends[-1].manifest
        files.append(_keep(request.out, name, EARLIER_ROLE, request.earlier.data))
        files += [file for file in request.earlier.manifest.files if file.role != "code"]
    sizes = RunFolder(request.out).code_sizes(code)
    files.extend(
        FileRecord(f"{CODE_FOLDER}/{file.name}", "code", size, file.sha256)
        for file, size in zip(code, sizes, strict=True)
    )
    return tuple(sorted(files, key=lambda file: file.name))


def _keep(folder: Path, name: str, role: str, data: bytes) -> FileRecord:
    """Put a signed file beside the study's other files, as part of it."""
    store.write_bytes(folder / f"{name}{store.PARTIAL}", data)
    return FileRecord(name, role, len(data), _sha256(data) or "")


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def _seed_record(finished: FinishedSeed) -> SeedRecord:
    trunk, folder = finished.trunk, seed_name(finished.seed, finished.fork)
    return SeedRecord(
        seed=finished.seed,
        fork=f"{folder}/fork.safetensors",
        fork_digests=trunk.fork_digests,
        order=f"{folder}/order.safetensors",
        order_sha256=trunk.order_sha256,
        trunk=f"{folder}/trunk.trace.safetensors",
        initial=trunk.initial,
        components=trunk.components,
        rng=trunk.rng,
        data=trunk.data,
        branches=(trunk.control, *finished.branches.branches),
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
