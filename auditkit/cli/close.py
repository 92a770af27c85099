"""``auditkit close``: a signed manifest of what an unclosed recording has left."""

from __future__ import annotations

import os
from pathlib import Path

import click

from auditkit.cli.console import console
from auditkit.cli.help import Command
from auditkit.cli.options import TEXT
from auditkit.cli.passwords import signing_key_of
from auditkit.errors import UsageError
from auditkit.formats.quote import brief
from auditkit.recorder.closing import close_recording
from auditkit.records.manifest import MANIFEST_NAME


@click.command(cls=Command)
@click.argument("folder", metavar="DIR", type=TEXT)
@click.option(
    "--key", type=TEXT, help="Private key to sign with; else $AUDITKIT_KEY, else this machine's."
)
@click.option(
    "--allow-lost", is_flag=True, help="Close it though files of checkpoints are gone; it says so."
)
def close(folder: str, key: str | None, *, allow_lost: bool) -> None:
    """Make a signed manifest of the recording in DIR whose process is dead.

    It has the steps of which everything is on disk, and says that it was made afterwards. The
    recording can no longer be resumed then.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 # Path's raises for a name that is too long
        raise UsageError(f"there is no folder {brief(folder)}", hint="auditkit list shows the runs")
    out = Path(folder)
    manifest = close_recording(out, signing_key_of(key), allow_lost=allow_lost)
    shown = console()
    steps = manifest.ranks[0].steps
    shown.print(f"closed: {steps} steps; {manifest.closed_as}")
    for rank in manifest.ranks:
        if rank.lost_checkpoints:
            shown.print(f"lost checkpoints of rank {rank.rank}: {rank.lost_note}")
    shown.print(f"manifest: {out / MANIFEST_NAME}")
    shown.print(f"next: auditkit verify {out / MANIFEST_NAME}")
