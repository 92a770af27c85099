"""``auditkit keygen``: make a signing key."""

from __future__ import annotations

from pathlib import Path

import click

from auditkit import store
from auditkit.errors import StoreError
from auditkit.signing import (
    default_key,
    ensure_default_key,
    fingerprint,
    generate_key,
    private_key_bytes,
    public_line,
)


@click.command()
@click.option(
    "--out", help="Private key file; FILE.pub is the public one. Default: this machine's."
)
def keygen(out: str | None) -> None:
    """Make an Ed25519 key. Without --out, this machine's own key, which it then trusts."""
    if out is None:
        key, created = ensure_default_key()
        state = "made" if created else "already there"
        click.echo(f"{state}: {default_key()}\nfingerprint: {fingerprint(key)}")
        return
    path, public = Path(out), Path(f"{out}.pub")
    for file in (path, public):
        if file.exists():
            raise StoreError("exists already, and a key is never overwritten", where=str(file))
    made = generate_key()
    store.write_bytes(path, private_key_bytes(made), private=True, replace=False)
    store.write_text(public, public_line(made) + "\n", replace=False)
    click.echo(f"private key: {path}\npublic key: {public}\nfingerprint: {fingerprint(made)}")
