"""``auditkit export``: a manifest in the form that another tool takes."""

from __future__ import annotations

import click

from auditkit.cli.help import Command
from auditkit.cli.options import TEXT
from auditkit.cli.outputs import destination
from auditkit.cli.received import manifest_path
from auditkit.files import store
from auditkit.files.outputs import never
from auditkit.formats import canonical
from auditkit.signing.sigstore_bundle import to_bundle


@click.command(cls=Command)
@click.argument("manifest", type=TEXT)
@click.option("--format", "_format", type=click.Choice(["sigstore"]), required=True)
@click.option("--out", required=True, type=TEXT, help="File to write; a new one.")
@click.option(
    "--by", type=TEXT, help="Fingerprint of the key whose signature it is, where there are several."
)
def export(manifest: str, _format: str, out: str, by: str | None) -> None:
    """Write MANIFEST as a Sigstore bundle: the same payload, one signature, its time stamps.

    Nothing is verified. A verifier of the bundle must be given the key.
    """
    path = manifest_path(manifest)
    bundle_to = destination("--out", out, never, "bundle", path)
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    bundle_to.write(to_bundle(data, by, what=path.name))
    click.echo(f"bundle: {out}", err=bundle_to.is_stdout)
