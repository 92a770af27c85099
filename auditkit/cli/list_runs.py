"""``auditkit list``: the runs below a folder.

``--json`` prints one object: ``folder``, and ``runs``, a list of
:class:`auditkit.diagnose.run_list.ListedRun`.
"""

from __future__ import annotations

import os
from pathlib import Path

import click

from auditkit.cli.console import console, print_table
from auditkit.cli.help import Command
from auditkit.cli.options import TEXT, wide_option
from auditkit.cli.outputs import json_of
from auditkit.diagnose.run_list import ListedRun, find_runs
from auditkit.errors import UsageError
from auditkit.formats import structure
from auditkit.formats.quote import brief

_BROKEN = (
    "broken: a manifest or journal that cannot be read, or a checkpoint that is gone; "
    "`auditkit verify` or, where there is no manifest, `auditkit close` says what"
)

_UNSIGNED = (
    "(unsigned report): so says the report.json beside the manifest, which anybody can have "
    "written; `auditkit verify` finds out"
)


@click.command("list", cls=Command)
@click.argument("folder", metavar="DIR", default=".", type=TEXT)
@wide_option
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def list_runs(folder: str, as_json: bool) -> None:
    """List the studies and recordings in DIR and below it. Nothing is verified."""
    if not os.path.isdir(folder):  # noqa: PTH112 # Path's raises for a name that is too long
        raise UsageError(f"there is no folder {brief(folder)}")
    found = find_runs(Path(folder))
    if as_json:
        runs = [structure.to_dict(run) for run in found]
        click.echo(json_of({"folder": folder, "runs": runs}).decode("ascii"))
        return
    out = console()
    if not found:
        out.print(f"no runs in {folder}")
        return
    notes = [_UNSIGNED] if any(run.verdict for run in found) else []
    print_table(out, "runs", [_row(run) for run in found], notes=notes)
    left = [run for run in found if run.state in ("resumable", "unfinished")]
    if any(run.state == "broken" for run in found):
        out.print(_BROKEN)
    if any(run.kind == "recording" for run in left):
        out.print("`auditkit close DIR` makes a manifest of a recording whose process is dead")


def _row(run: ListedRun) -> tuple[str, ...]:
    return (
        run.folder,
        run.kind or "-",
        run.state,
        "-" if run.steps is None else str(run.steps),
        (run.finished or run.started or "-").replace("T", " ").removesuffix("Z"),
        f"{run.verdict} (unsigned report)" if run.verdict else "-",
    )
