"""Every error that auditkit raises on purpose.

The tree (the number is the exit code that the command line gives it)::

    AuditError                      1
    ├── UsageError                  2  arguments or a plan that cannot mean anything
    │   ├── PlanError               2  fork, window, horizon, seeds, perturbations
    │   ├── UnknownPerturbation     2  no perturbation of that name or with that parameter
    │   ├── ProgramError            2  the factory cannot be found or returned something else
    │   │   ├── UnknownArgument     2  the factory takes no argument of that name
    │   │   └── DataMissing         2  no data where an argument of the factory says they lie
    │   ├── CommandError            2  the user's command cannot be started
    │   ├── RecorderMisuse          2  objects that the Recorder cannot make sense of
    │   ├── KeyFileError            2  a key file that cannot be read
    │   │   └── KeyEncrypted        2  a private key whose password was not given
    │   └── StoreError              2  a folder that cannot be read or written
    ├── ProgramFailed               1  the user's program raised
    ├── ConnectionLost              1  the process at the other end of a connection is gone
    ├── CaptureError                1  the training state cannot be frozen or restored
    │   ├── UncapturedState         1  state that no snapshot would hold
    │   ├── RestoreMismatch         1  a snapshot of another program
    │   ├── ReplicaMismatch         1  a replica that is not its control
    │   ├── UnsupportedLoader       1  a data loader that cannot be resumed exactly
    │   ├── ProbeDisturbance        1  the probe changed the training state
    │   └── NothingToPerturb        1  the program has nothing that a perturbation could change
    ├── RecordingIncomplete         1  a recording that cannot be finished or resumed
    ├── ResumeMismatch              1  a resumed loop that is not the one that was recorded
    ├── AttemptsDiffer              1  a job that an engine ran twice left other files
    ├── OrderDrift                  1  a sampler yielded other indices than the control's
    ├── AugmentationDrift           1  a sample that does not look the same again
    ├── ArtifactError               1  a file of a run is not what the manifest says
    │   ├── ArtifactMissing         1
    │   ├── ArtifactMismatch        1
    │   └── UnsafePath              1  a path that leaves the run folder, a link, a device
    ├── SignatureError              1  a signature that does not match
    │   ├── NotTrusted              3  signed by a key that is not trusted
    │   ├── NotSigned               4
    │   └── TimestampError          1  a time stamp of something else, or by nobody trusted
    ├── MalformedError              5  bytes that are not what their name says
    │   ├── JsonError               5  not strict JSON
    │   ├── SchemaError             5  JSON of another shape
    │   ├── FormatError             5  a safetensors file or time stamp of another shape
    │   └── ArchiveError            5  a .zip or .tar.gz that is broken or holds what it must not
    └── Undecided                   6  nothing can be said: code or data missing, other environment

Each leaf is something that the caller can act on. The message is one line; ``expected``,
``found``, ``where``, ``hint`` and ``lacking`` carry its parts for programs.
"""

from __future__ import annotations

from typing import ClassVar


class AuditError(Exception):
    """Root of the tree; the command line catches only this.

    Args:
        message: What went wrong, in one line.
        expected: What should have been there.
        found: What was there instead.
        where: File, seed, branch or component.
        step: Step (batch number, from 1), where one is known.
        component: Component of the training state, where one is known.
        hint: What to do about it.
        lacking: Options of ``auditkit verify`` that would mend it, as they are typed; ``PATH``
            stands for what only the reader knows.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        message: str,
        *,
        expected: object = None,
        found: object = None,
        where: str | None = None,
        step: int | None = None,
        component: str | None = None,
        hint: str | None = None,
        lacking: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.found = found
        self.where = where
        self.step = step
        self.component = component
        self.hint = hint
        self.lacking = tuple(lacking)  # a list where a worker told it

    def __str__(self) -> str:
        place = [
            self.where,
            None if self.step is None else f"step {self.step}",
            self.component,
        ]
        prefix = ", ".join(part for part in place if part)
        text = f"{prefix}: {self.message}" if prefix else self.message
        return " ".join(f"{text}{self.details()}".split())

    def details(self) -> str:
        """What was expected and found, and what to do, as the end of a sentence."""
        parts = (("expected", self.expected), ("found", self.found))
        known = ", ".join(f"{name} {value}" for name, value in parts if value is not None)
        hint = f"; {self.hint}" if self.hint else ""
        return (f" ({known})" if known else "") + hint


class UsageError(AuditError):
    """Arguments or a plan that cannot mean anything."""

    exit_code = 2


class PlanError(UsageError):
    """A plan that contradicts itself."""


class UnknownPerturbation(UsageError):
    """No perturbation of that name, or none with that parameter or value."""


class ProgramError(UsageError):
    """The factory cannot be found, or what it returned is no program."""


class UnknownArgument(ProgramError):
    """The factory takes no argument of that name, which is what was ``found``."""


class DataMissing(ProgramError):
    """The program has found no data where an argument of its factory says that they lie."""


class CommandError(UsageError):
    """The user's command cannot be started: not found, not executable, no such folder."""


class RecorderMisuse(UsageError):
    """Objects that the Recorder cannot make sense of, or calls in the wrong order."""


class KeyFileError(UsageError):
    """A key file that is missing, encrypted with another password, or of an unsupported kind."""


class KeyEncrypted(KeyFileError):
    """A private key whose password was not given."""


class StoreError(UsageError):
    """A folder or file that cannot be read or written."""


class ProgramFailed(AuditError):
    """The user's program raised; its own error is in the message."""


class ConnectionLost(AuditError):
    """The process at the other end of a connection is gone, or was never there."""


class CaptureError(AuditError):
    """The training state cannot be frozen or restored."""


class UncapturedState(CaptureError):
    """State that influences training and that no snapshot would hold."""


class RestoreMismatch(CaptureError):
    """A snapshot whose tensors do not fit the live program."""


class ReplicaMismatch(CaptureError):
    """A branch that nothing was changed in, and that is not what its control is."""


class UnsupportedLoader(CaptureError):
    """A data loader that cannot be recorded or resumed exactly."""


class ProbeDisturbance(CaptureError):
    """Evaluating the probe changed the training state."""


class NothingToPerturb(CaptureError):
    """The program has nothing that the perturbation could change.

    Attributes:
        for_now: Whether it has it, as it would become, and may have another value later.
    """

    for_now = False


class RecordingIncomplete(AuditError):
    """A recording that cannot be finished, or that cannot be resumed."""


class ResumeMismatch(AuditError):
    """A loop that goes on from a checkpoint, and not as the killed run went on from there."""


class AttemptsDiffer(AuditError):
    """A job that an engine ran twice, since a worker was lost, and that left other files."""


class OrderDrift(AuditError):
    """A loader's own sampler yielded other indices than it did for the control."""


class AugmentationDrift(AuditError):
    """A sample that follows from more than (seed, epoch, index), under per-sample augmentation."""


class ArtifactError(AuditError):
    """A file of a run is not what the manifest says."""


class ArtifactMissing(ArtifactError):
    """A listed file does not exist."""


class ArtifactMismatch(ArtifactError):
    """A listed file has another size, digest or content."""


class UnsafePath(ArtifactError):
    """A path that leaves the run folder, or that is no regular file."""


class SignatureError(AuditError):
    """A signature under a trusted key's name that does not match."""


class NotTrusted(SignatureError):
    """Signed, but by no key that the verifier trusts."""

    exit_code = 3


class NotSigned(SignatureError):
    """No signature at all."""

    exit_code = 4


class TimestampError(SignatureError):
    """A time stamp that is not of this signature, not granted, or by no trusted authority."""


class MalformedError(AuditError):
    """Bytes that are not what their name says."""

    exit_code = 5


class JsonError(MalformedError):
    """Not strict JSON: syntax, duplicate keys, NaN, size or depth."""


class SchemaError(MalformedError):
    """JSON of another shape than its schema."""


class FormatError(MalformedError):
    """A safetensors file or a time stamp that is broken or holds something else."""


class ArchiveError(MalformedError):
    """A .zip or .tar.gz that is broken, too large, or holds what is not taken out of it."""


class Undecided(AuditError):
    """Nothing can be said: code or data are missing, or the environment differs."""

    exit_code = 6
