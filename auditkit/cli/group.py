"""The command group; one handler turns every error of the tree into a line and an exit code."""

from __future__ import annotations

import importlib
from typing import Any

import click

from auditkit import __version__
from auditkit.errors import AuditError

#: Command by name; modules are loaded when a command is used.
_COMMANDS = {
    "worker": "auditkit.cli.worker:worker",
}


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
            click.echo(f"auditkit: {error}", err=True)
            ctx.exit(error.exit_code)


@click.command(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "--version", prog_name="auditkit")
def main() -> None:
    """Branch-and-Hold studies of training memory, with evidence that a reviewer can replay."""
