"""``auditkit sign``: add a signature to what somebody else signed."""

from __future__ import annotations

import hashlib

import click

from auditkit.cli.help import Command
from auditkit.cli.manifest_update import read_manifest, rewrite
from auditkit.cli.options import TEXT
from auditkit.cli.passwords import signing_key_of
from auditkit.cli.received import manifest_path
from auditkit.cli.spelling import counted
from auditkit.errors import StoreError
from auditkit.files.outputs import check_rewritable
from auditkit.formats.quote import printable
from auditkit.signing.envelopes import add_signature, open_envelope, statement_type


@click.command(cls=Command)
@click.argument("manifest", type=TEXT)
@click.option(
    "--key", type=TEXT, help="Private key to sign with; else $AUDITKIT_KEY, else this machine's."
)
def sign(manifest: str, key: str | None) -> None:
    """Add your signature to MANIFEST. What was signed, and by whom, stays as it is.

    Nothing is verified: run `auditkit verify` first, and sign what you stand for.
    """
    path = manifest_path(manifest)
    check_rewritable(path)
    # before a key is made, or a password asked for, which no lock may wait for
    envelope = open_envelope(read_manifest(path), what=path.name)
    kind = statement_type(envelope, what=path.name)
    signer = signing_key_of(key)

    def with_signature(data: bytes) -> bytes:
        now = open_envelope(data, what=path.name)
        if (now.payload, now.payload_type) != (envelope.payload, envelope.payload_type):
            raise StoreError("it was changed in the meantime", where=str(path), hint="sign again")
        return add_signature(data, signer.key, what=path.name)

    signed = rewrite(path, with_signature)
    if signed is None:
        click.echo(f"{signer.fingerprint} has signed {manifest} already; nothing was written")
        return
    count = len(open_envelope(signed, what=path.name).signatures)
    click.echo(
        f"signed: {manifest}, now with {counted(count, 'signature')}\nby: {signer.fingerprint}"
    )
    click.echo(f"statement: {printable(kind)}, unchanged")
    click.echo(f"its sha256: {hashlib.sha256(envelope.payload).hexdigest()}")
