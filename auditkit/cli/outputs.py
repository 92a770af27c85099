"""Where a command's options write: standard output for ``-``, else a file that may be written.

Every option that writes a file makes its destination here, before the command does anything
else; :mod:`auditkit.files.outputs` says what is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from auditkit.errors import UsageError
from auditkit.files.outputs import Output, Recogniser, json_with, never
from auditkit.formats import canonical
from auditkit.formats.quote import as_utf8

#: What the options write that replace their own earlier files.
REPRODUCTION = json_with("recorded_sha256", "reproduced_sha256", "rows")
REPLAY = json_with("equal", "exit_code", "manifest_sha256", "findings")
DIAGNOSIS = json_with("exit_code", "repeatable", "steps", "runs")


@dataclass(frozen=True)
class Destination:
    """Where an option writes.

    Attributes:
        is_stdout: Whether to standard output.
        file: The file; None for standard output, and where the option was not given.
    """

    is_stdout: bool
    file: Output | None

    def write(self, data: bytes) -> None:
        """Write what belongs there; nothing where the option was not given."""
        if self.is_stdout:
            click.echo(data, nl=not data.endswith(b"\n"))
        elif self.file is not None:
            self.file.write(data)


def json_of(told: object) -> bytes:
    """JSON for people and programs to read; what is no UTF-8, as names of files, is escaped in it.

    Args:
        told: What :func:`auditkit.formats.structure.to_dict` gives.
    """
    return canonical.dumps(_escaped(told))


def _escaped(told: object) -> object:
    if isinstance(told, str):
        return as_utf8(told)
    if isinstance(told, Mapping):
        return {name: _escaped(value) for name, value in told.items()}
    return [_escaped(value) for value in told] if isinstance(told, (list, tuple)) else told


def destination(
    option: str,
    text: str | None,
    is_own: Recogniser,
    noun: str,
    manifest: Path | None = None,
) -> Destination:
    """Where an option writes, once it is known that it may.

    Args:
        option: The option, as it is typed.
        text: What it was given; None where it was not.
        is_own: Recognises the option's own earlier file, which is replaced.
        noun: What is written.
        manifest: The manifest that the command was given.

    Raises:
        StoreError: When the file may not be written.
    """
    if text is None:
        return Destination(is_stdout=False, file=None)
    if text == "-":
        return Destination(is_stdout=True, file=None)
    return Destination(is_stdout=False, file=_output(option, text, is_own, noun, manifest))


def new_file(option: str, text: str, noun: str, manifest: Path | None = None) -> Output:
    """A file that must be a new one, once it is known that it may be written.

    Raises:
        UsageError: For ``-``: it is to be used as a file.
        StoreError: When it exists, or may not be written.
    """
    if text == "-":
        raise UsageError(f"{option} -: a {noun} is not printed", hint="name a new file")
    return _output(option, text, never, noun, manifest)


def result_beside(manifest: Path, name: str, noun: str, hint: str) -> Output:
    """A new file that a command leaves beside a manifest; to be checked before anything runs."""
    return Output(f"the {noun}", manifest.parent / name, never, noun, manifest, hint)


def _output(option: str, text: str, is_own: Recogniser, noun: str, manifest: Path | None) -> Output:
    if text.endswith("/"):
        raise UsageError(f"{option} {text!r} is a folder", hint="name a new file")
    output = Output(option, Path(text), is_own, noun, manifest)
    output.check()
    return output
