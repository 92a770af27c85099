"""``auditkit keygen``: make a signing key."""

from __future__ import annotations

import os
from pathlib import Path

import click

from auditkit.cli.help import Command
from auditkit.cli.options import TEXT
from auditkit.cli.outputs import new_file
from auditkit.cli.passwords import new_password, unlocking
from auditkit.errors import StoreError
from auditkit.signing.keys import fingerprint, generate_key, private_key_bytes, public_line
from auditkit.signing.trust import default_key, ensure_default_key


@click.command(cls=Command)
@click.option(
    "--out",
    type=TEXT,
    help="Private key file; FILE.pub is the public one. Default: this machine's.",
)
@click.option(
    "--encrypt", is_flag=True, help="With a password: $AUDITKIT_KEY_PASSWORD, else asked for."
)
def keygen(out: str | None, encrypt: bool) -> None:
    """Make an Ed25519 key. Without --out, this machine's own key, which it then trusts."""
    if out is None:
        if encrypt:
            _refuse_existing(default_key())
        new = new_password() if encrypt else None
        key, created = unlocking(
            lambda password: ensure_default_key(password=password, new_password=new)
        )
        state = "made" if created else "already there"
        click.echo(f"{state}: {default_key()}\nfingerprint: {fingerprint(key)}")
        return
    private_to = new_file("--out", out, "key")
    public_to = new_file("--out", f"{out}.pub", "key")
    made = generate_key()
    data = private_key_bytes(made, new_password() if encrypt else None)
    private_to.write(data, private=True)
    public_to.write(f"{public_line(made)}\n".encode())
    click.echo(f"private key: {private_to.path}\npublic key: {public_to.path}")
    click.echo(f"fingerprint: {fingerprint(made)}")


def _refuse_existing(file: Path) -> None:
    if os.path.lexists(file):
        raise StoreError("exists already, and a key is never overwritten", where=str(file))
