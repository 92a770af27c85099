"""Is training repeatable, and does it still do what was recorded? As assertions for tests.

The fixtures of :mod:`auditkit.integrations.pytest_plugin` are these two functions, which need no
pytest themselves. What is run is run in fresh processes.
"""

from __future__ import annotations

import inspect
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from auditkit.diagnose.doctor import Diagnosis, examine_command, examine_program
from auditkit.diagnose.telling import diagnosis_lines, replay_lines
from auditkit.errors import UsageError
from auditkit.evidence.comparison import compare_traces, environment_differences
from auditkit.evidence.reader import RecordingEvidence, RunEvidence
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.statements import Manifest, manifest_from_statement
from auditkit.processes.commands import Commands
from auditkit.processes.worker_pool import Workers
from auditkit.records.job import Job, ProgramSource
from auditkit.records.manifest import MANIFEST_NAME, SIGNER_NAME, StudyManifest
from auditkit.records.plan import PerturbationSpec
from auditkit.records.recording import RecordingManifest
from auditkit.records.results import TrunkResult
from auditkit.replay.attempts import read_attempt
from auditkit.replay.live_comparison import CommandConfig
from auditkit.replay.recording_replay import replay_recording
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.trust import key_by_fingerprint
from auditkit.verification.procedure import VerifyRequest, verify

#: A program (``study.py``, ``study.py:NAME``, ``package.module:NAME``, or the factory itself), or
#: a loop with a Recorder in it (a command, or a function without arguments).
Subject = str | os.PathLike[str] | Sequence[str] | Callable[..., Any]

_TRUSTED = 2


def assert_repeatable(
    program_or_loop: Subject,
    steps: int = 20,
    *,
    runs: int = 2,
    arguments: Mapping[str, str] | None = None,
) -> Diagnosis:
    """Run the first steps several times and compare them bit for bit.

    Args:
        program_or_loop: A program as ``auditkit run`` takes it, by name or its factory; or a
            command (a list), or a function without arguments, that trains with a Recorder.
        steps: Steps of every run, at least three.
        runs: Runs that are compared, at least two.
        arguments: Further arguments of the factory.

    Raises:
        AssertionError: When runs differ, or a resume is not exact: with what ``auditkit doctor``
            says of it.
        AuditError: When it cannot be run.
    """
    __tracebackhide__ = True
    if steps < 3 or runs < 2:
        raise UsageError("steps is at least 3, runs at least 2")
    subject = _subject_of(program_or_loop, arguments or {})
    if subject.program is not None:
        found = examine_program(subject.program, steps, runs)
    else:
        with Commands() as commands:
            found = examine_command(CommandConfig(commands, subject.command, {}), steps, runs)
    resumes = found.resume is None or found.resume.parting is None
    if not (found.repeatable and resumes):
        raise AssertionError("\n".join(diagnosis_lines(found)))
    return found


def assert_same_as(
    manifest: str | os.PathLike[str],
    program_or_loop: Subject | None = None,
    steps: int = 20,
    *,
    fingerprint: str | None = None,
) -> None:
    """Run the first steps of what a manifest is of, and compare them with it bit for bit.

    Of a recording the loop is run, of a study the trunk of its first seed.

    Args:
        manifest: The manifest, or its folder.
        program_or_loop: What is run, as for :func:`assert_repeatable`; by default the file of the
            recorded name, in the working folder or a folder above the manifest.
        steps: How many steps are compared.
        fingerprint: ``SHA256:...`` of who must have signed it; by default whoever did.

    Raises:
        AssertionError: When they differ: with what ``auditkit replay`` says of it.
        AuditError: When the manifest is not in order, or it cannot be run.
    """
    __tracebackhide__ = True
    if steps < 1:
        raise UsageError("steps is at least 1")
    path = Path(manifest)
    path = path / MANIFEST_NAME if path.is_dir() else path
    record = _verified(path, fingerprint)
    if program_or_loop is None:
        subject = _recorded_subject(path, record)
    else:
        arguments = {} if isinstance(record, RecordingManifest) else record.program.arguments
        subject = _subject_of(program_or_loop, arguments)
    if isinstance(record, RecordingManifest):
        lines = _compare_loop(RecordingEvidence(path.parent, record), subject, steps)
    else:
        lines = _compare_trunk(RunEvidence(path.parent, record), subject, steps)
    if lines:
        raise AssertionError("\n".join(lines))


# What is run


@dataclass(frozen=True)
class _Subject:
    """A program, or a command."""

    program: ProgramSource | None
    command: tuple[str, ...] = ()


def _subject_of(given: Subject, arguments: Mapping[str, str]) -> _Subject:
    if isinstance(given, str | os.PathLike):
        return _Subject(_named_program(os.fspath(given), arguments))
    if not callable(given):
        command = tuple(os.fspath(part) for part in given)
        if not command:
            raise UsageError("the command is empty")
        return _Subject(None, command)
    module, folder = _place_of(given)
    parameters = inspect.signature(given).parameters.values()
    if any(one.default is one.empty and one.kind is not one.VAR_KEYWORD for one in parameters):
        target = f"{module}:{given.__qualname__}"
        return _Subject(ProgramSource(target, folder, dict(arguments)))
    call = f"importlib.import_module({module.removesuffix('.py')!r}).{given.__qualname__}()"
    code = f"import importlib, sys; sys.path.insert(0, {folder!r}); {call}"
    return _Subject(None, (sys.executable, "-c", code))


def _named_program(text: str, arguments: Mapping[str, str]) -> ProgramSource:
    place, _, name = text.partition(":")
    name = name or "make_program"
    if not place.endswith(".py"):
        return ProgramSource(f"{place}:{name}", str(Path.cwd()), dict(arguments))
    path = Path(place).resolve()
    if not path.is_file():
        raise UsageError(f"no such program file: {place}")
    return ProgramSource(f"{path.name}:{name}", str(path.parent), dict(arguments))


def _place_of(function: Callable[..., Any]) -> tuple[str, str]:
    """Module of a function, and the folder that it is imported from."""
    name, file = getattr(function, "__qualname__", ""), inspect.getsourcefile(function)
    if file is None or not name.isidentifier():
        raise UsageError(
            f"{name or function!r} cannot be found by a fresh process",
            hint="give a function that stands at the top of a module, or a command",
        )
    path, module = Path(file).resolve(), function.__module__
    if module == "__main__" or "." not in module:
        return path.name, str(path.parent)
    depth = module.count(".") + (path.name == "__init__.py")
    return module, str(path.parents[depth])


def _recorded_subject(path: Path, record: Manifest) -> _Subject:
    """The file of the recorded name, as it is now; no recorded command line is ever run."""
    is_recording = isinstance(record, RecordingManifest)
    if not is_recording and record.program.command:
        raise UsageError(
            "it is a study of a script", hint="compare it by auditkit verify MANIFEST -- COMMAND"
        )
    if isinstance(record, RecordingManifest) and record.command:
        raise UsageError(
            "it was recorded with a command line, which is never run from a record",
            where=str(path),
            hint="give it: assert_same_as(manifest, [sys.executable, 'train.py', ...])",
        )
    place, _, name = record.program.target.partition(":")
    folders = [Path.cwd(), *path.resolve().parent.parents]
    if not is_recording and not place.endswith(".py"):
        return _Subject(ProgramSource(f"{place}:{name}", str(Path.cwd()), record.program.arguments))
    found = next((folder / place for folder in folders if (folder / place).is_file()), None)
    if found is None or not place.endswith(".py"):
        raise UsageError(
            f"there is no {place} in the working folder or above the manifest",
            where=str(path),
            hint="give what is to be run: assert_same_as(manifest, program_or_loop)",
        )
    if is_recording:
        return _Subject(None, (sys.executable, str(found)))
    return _Subject(_named_program(f"{found}:{name}", record.program.arguments))


# What it is compared with


def _verified(path: Path, fingerprint: str | None) -> Manifest:
    """The manifest, if checks 1 to 5 pass; without a fingerprint anybody may have signed it."""
    keys = []
    if fingerprint is not None:
        keys = [key_by_fingerprint(fingerprint, path.parent / SIGNER_NAME)]
    report = verify(path, VerifyRequest(trusted=keys, replay="none"))
    for check in report.checks[:5]:
        is_open = check.number == _TRUSTED and fingerprint is None
        findings = [f for f in check.findings if not (is_open and f.exit_code in (3, 4))]
        if findings:
            raise UsageError(f"check {check.number} {check.name}: {findings[0]}", where=str(path))
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    return manifest_from_statement(open_envelope(data, what=path.name).payload, what=path.name)


def _compare_loop(evidence: RecordingEvidence, subject: _Subject, steps: int) -> list[str]:
    if subject.program is not None:
        raise UsageError(
            "a recording is of a loop, not of a program",
            hint="give a command (a list), or a function without arguments that trains",
        )
    with Commands() as commands:
        config = CommandConfig(commands, subject.command, {})
        found = replay_recording(evidence, config, steps=steps)
    return [] if found.equal else list(replay_lines(found, evidence.manifest))


def _compare_trunk(evidence: RunEvidence, subject: _Subject, steps: int) -> list[str]:
    manifest = evidence.manifest
    if subject.program is None:
        raise UsageError("a study is of a program", hint="give FILE.py, FILE.py:NAME, or a factory")
    record = manifest.seeds[0]
    last = min(steps, manifest.plan.fork_at)
    nothing = (PerturbationSpec("carry", {}),)
    first = manifest.plan.at(manifest.plan.fork_at)
    plan = replace(first, fork_at=last, window=1, horizon=last + 2, perturbations=nothing)
    with tempfile.TemporaryDirectory(prefix="auditkit-same-") as scratch, Workers() as workers:
        result = workers.run(Job("trunk", subject.program, plan, record.seed, out=scratch))
        attempt = read_attempt(Path(scratch), result)
    recorded = evidence.trace(record.trunk).until(last)
    mismatch = compare_traces(f"seed {record.seed}", recorded, attempt.traces["trunk"].until(last))
    if mismatch is None:
        return []
    lines = [f"Different: steps 1..{last} of seed {record.seed} were compared.", f"  {mismatch}"]
    return [*lines, *_reasons(manifest, result)]


def _reasons(manifest: StudyManifest, result: TrunkResult) -> list[str]:
    """What is not as recorded, beside what was trained."""
    there = {file.name: file.sha256 for file in manifest.program.code}
    here = {file.name: file.sha256 for file in result.code}
    others = sorted(name for name in set(there) | set(here) if there.get(name) != here.get(name))
    found = [f"  {name} is another file than the recorded one" for name in others]
    differences = environment_differences(manifest.environment, result.environment)
    return [*found, *(f"  environment: {line}" for line in differences)]
