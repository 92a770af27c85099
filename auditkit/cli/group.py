"""The command group; one handler turns every error of the tree into a line and an exit code."""

from __future__ import annotations

import atexit
import gc
import importlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import click

from auditkit import errors
from auditkit.cli.help import SECTIONS, Group
from auditkit.cli.options import KEPT
from auditkit.cli.signals import how_it_ended
from auditkit.errors import AuditError, StoreError
from auditkit.version import __version__

#: Command by name; modules are loaded when a command is used, so that verifying without replay
#: loads neither torch nor scipy.
_COMMANDS = {
    "power": "auditkit.cli.power:power",
    "plan": "auditkit.cli.plan:plan",
    "run": "auditkit.cli.run:run",
    "verify": "auditkit.cli.verify:verify_command",
    "reproduce": "auditkit.cli.reproduce:reproduce",
    "replay": "auditkit.cli.replay:replay",
    "doctor": "auditkit.cli.doctor:doctor",
    "show": "auditkit.cli.show:show",
    "diff": "auditkit.cli.diff:diff",
    "pack": "auditkit.cli.pack:pack_command",
    "list": "auditkit.cli.list_runs:list_runs",
    "close": "auditkit.cli.close:close",
    "perturbations": "auditkit.cli.perturbations:perturbations",
    "report": "auditkit.cli.report:report_command",
    "checklist": "auditkit.cli.checklist:checklist",
    "explain": "auditkit.cli.explain:explain_command",
    "keygen": "auditkit.cli.keygen:keygen",
    "sign": "auditkit.cli.sign:sign",
    "timestamp": "auditkit.cli.timestamp:timestamp",
    "export": "auditkit.cli.export:export",
    "worker": "auditkit.cli.worker:worker",
}


class _Group(Group):
    """Loads commands lazily and reports errors in one line."""

    #: Whether the process is to be that of a command which is not loaded yet.
    _is_loading = False

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(importlib.import_module(module), name)
        if self._is_loading:
            self._is_loading = False
            gc.freeze()
            gc.enable()
        return command if isinstance(command, click.Command) else None

    def summaries(self, ctx: click.Context) -> dict[str, str]:
        """Those that are written down: to ask the commands would load all of them."""
        return {name: text for section in SECTIONS.values() for name, text in section.items()}

    def __call__(self, *args: Any, **extra: Any) -> Any:
        """Be the program of this process, which is over when the command is."""
        # else Python looks for circles in all that is imported, meanwhile and as its last act: a
        # fifth of a start
        gc.disable()
        self._is_loading = True
        atexit.register(gc.freeze)
        return super().__call__(*args, **extra)

    def main(self, *args: Any, **extra: Any) -> Any:
        """End every command in one line at most, its output flushed, as :func:`_ending` says."""
        with _ending():
            for name, stream in (("output", sys.stdout), ("error", sys.stderr)):
                if stream is None:  # closed by whoever called: a file would take its number
                    hint = "to see nothing, send it to /dev/null"
                    raise StoreError(f"standard {name} is closed", hint=hint)
            _require_working_folder()
            return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        # here and below, since click ends a broken pipe and Ctrl-C with 1: a check failed
        with _ending():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _ending(ctx.meta):
            return super().invoke(ctx)


def _require_working_folder() -> None:
    """Say it here once: libraries say it as their own fault, in the middle of something."""
    try:
        os.getcwd()  # noqa: PTH109 # what Path.cwd is made of, and pathlib is not needed for help
    except OSError as error:
        hint = "cd to one that is there"
        raise StoreError(f"the working folder is gone: {error.strerror}", hint=hint) from None


@contextmanager
def _ending(meta: Mapping[str, Any] = {}) -> Iterator[None]:
    """End in one line and an exit code what ends in an error, also of the operating system.

    What was printed is flushed here, where an error can still be told. A pipe that nobody reads
    any more (``| head``) is no news to whoever closed it: nothing is said.

    Args:
        meta: What the command left in its context.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except AuditError as error:
        _say(f"{error} ({_topic(error)})")
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort) as error:  # the latter where something was asked
        how, code = how_it_ended(error)
        _say(f"{how}; {meta[KEPT]}" if meta.get(KEPT) else how)
        sys.exit(code)
    except OSError as error:
        # What could not be written is still in the buffer, and Python would try again at its end.
        sys.stdout = io.StringIO()
        if not isinstance(error, BrokenPipeError):
            place = "what is printed" if error.filename is None else repr(error.filename)
            reason = error.strerror or type(error).__name__
            _say(f"cannot read or write {place}: {reason} (auditkit explain StoreError)")
        sys.exit(StoreError.exit_code)


def _say(line: str) -> None:
    # what is said of an error is spelt with records, which help pages do not load
    from auditkit.cli.saying import say  # noqa: PLC0415

    with suppress(OSError):
        say(line)


def _topic(error: AuditError) -> str:
    """How to read on: the error's class, or the nearest one that the tree itself has."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return f"auditkit explain {kind.__name__}"


@click.command(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="auditkit")
def main() -> None:
    """Branch-and-Hold studies of training memory, with evidence that a reviewer can replay."""
