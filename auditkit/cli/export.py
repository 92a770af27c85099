"""``auditkit export``: a manifest in the form that another tool takes."""

from __future__ import annotations

from pathlib import Path

import click

from auditkit.cli.options import manifest_path
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.signing.sigstore_bundle import to_bundle


@click.command()
@click.argument("manifest")
@click.option("--format", "_format", type=click.Choice(["sigstore"]), required=True)
@click.option("--out", required=True, help="File to write; a new one.")
@click.option("--by", help="Fingerprint of the key whose signature it is, where there are several.")
def export(manifest: str, _format: str, out: str, by: str | None) -> None:
    """Write MANIFEST as a Sigstore bundle: the same payload, one signature, its time stamps.

    Nothing is verified. A verifier of the bundle must be given the key.
    """
    path = manifest_path(manifest)
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    store.write_bytes(Path(out), to_bundle(data, by, what=path.name), replace=False)
    click.echo(f"bundle: {out}")
