"""The command group; one handler turns every error of the tree into a line and an exit code."""

from __future__ import annotations

import importlib
from typing import Any

import click

from auditkit import errors
from auditkit.errors import AuditError
from auditkit.formats.quote import printable
from auditkit.version import __version__

#: Command by name; modules are loaded when a command is used, so that verifying without replay
#: loads neither torch nor scipy.
_COMMANDS = {
    "plan": "auditkit.cli.plan:plan",
    "run": "auditkit.cli.run:run",
    "verify": "auditkit.cli.verify:verify_command",
    "reproduce": "auditkit.cli.reproduce:reproduce",
    "replay": "auditkit.cli.replay:replay",
    "doctor": "auditkit.cli.doctor:doctor",
    "show": "auditkit.cli.show:show",
    "diff": "auditkit.cli.diff:diff",
    "checklist": "auditkit.cli.checklist:checklist",
    "explain": "auditkit.cli.explain:explain_command",
    "keygen": "auditkit.cli.keygen:keygen",
    "sign": "auditkit.cli.sign:sign",
    "timestamp": "auditkit.cli.timestamp:timestamp",
    "export": "auditkit.cli.export:export",
    "worker": "auditkit.cli.worker:worker",
}

#: What a shell reports for a process that was interrupted.
_INTERRUPTED = 130


class _Group(click.Group):
    """Loads commands lazily and reports errors in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = _COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, name = place.partition(":")
        command = getattr(importlib.import_module(module), name)
        return command if isinstance(command, click.Command) else None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except AuditError as error:
            click.echo(f"auditkit: {printable(str(error))} ({_topic(error)})", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            kept = (
                "; complete seeds are kept for --resume" if ctx.invoked_subcommand == "run" else ""
            )
            click.echo(f"auditkit: interrupted{kept}", err=True)
            ctx.exit(_INTERRUPTED)


def _topic(error: AuditError) -> str:
    """How to read on: the error's class, or the nearest one that the tree itself has."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
    return f"auditkit explain {kind.__name__}"


@click.command(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="auditkit")
def main() -> None:
    """Branch-and-Hold studies of training memory, with evidence that a reviewer can replay."""
