"""``auditkit sign``: add a signature to what somebody else signed."""

from __future__ import annotations

import hashlib

import click

from auditkit import canonical, store
from auditkit.cli.options import manifest_path
from auditkit.cli.passwords import signing_key_of
from auditkit.envelopes import statement_type
from auditkit.quote import printable
from auditkit.signing import add_signature, open_envelope


@click.command()
@click.argument("manifest")
@click.option("--key", help="Private key to sign with; else $AUDITKIT_KEY, else this machine's.")
def sign(manifest: str, key: str | None) -> None:
    """Add your signature to MANIFEST. What was signed, and by whom, stays as it is.

    Nothing is verified: run `auditkit verify` first, and sign what you stand for.
    """
    path = manifest_path(manifest)
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    envelope = open_envelope(data, what=path.name)
    kind = statement_type(envelope, what=path.name)
    signer = signing_key_of(key)
    signed = add_signature(data, signer.key, what=path.name)
    if signed == data:
        click.echo(f"{signer.fingerprint} has signed {manifest} already; nothing was written")
        return
    store.write_bytes(path, signed)
    count = len(open_envelope(signed, what=path.name).signatures)
    click.echo(f"signed: {manifest}, now with {count} signature(s)\nby: {signer.fingerprint}")
    click.echo(f"statement: {printable(kind)}, unchanged")
    click.echo(f"its sha256: {hashlib.sha256(envelope.payload).hexdigest()}")
