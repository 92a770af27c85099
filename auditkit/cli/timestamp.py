"""``auditkit timestamp``: ask for a time stamp of a signature, and attach it. Nothing is sent."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from auditkit import canonical, store
from auditkit.cli.extras import timestamps
from auditkit.envelopes import select_signature
from auditkit.quote import printable
from auditkit.signing import Signature, open_envelope


@click.group()
def timestamp() -> None:
    """Time stamps of signatures by a third party (RFC 3161)."""


@timestamp.command()
@click.argument("file")
@click.option("--out", help="The request; a new file. Default: FILE's name with .tsq, here.")
@click.option("--by", help="Fingerprint of the key whose signature it is, where there are several.")
def request(file: str, out: str | None, by: str | None) -> None:
    """Write a request for a time stamp of FILE's signature; you send it.

    FILE is a manifest, or whatever else auditkit signed.
    """
    stamps, path = timestamps(), Path(file)
    envelope = open_envelope(_read(path), what=path.name)
    signature = envelope.signatures[select_signature(envelope, by)]
    # not beside FILE: what lies in a run's folder and is not in its manifest is reported
    query = out or path.with_suffix(".tsq").name
    store.write_bytes(Path(query), stamps.request(signature.value), replace=False)
    reply = str(Path(query).with_suffix(".tsr"))
    click.echo(f"request: {query}, for the signature by {_by(signature)}")
    click.echo("send it to an authority of your choice, then attach its reply:")
    header = "Content-Type: application/timestamp-query"
    send = ["curl", "-H", header, "--data-binary", f"@{query}", "-o", reply]
    click.echo(f"  {shlex.join(send)} AUTHORITY_URL")
    click.echo(f"  {shlex.join(['auditkit', 'timestamp', 'attach', file, reply])}")


@timestamp.command()
@click.argument("file")
@click.argument("reply")
@click.option("--authority", "files", multiple=True, help="Root certificate to check it with.")
def attach(file: str, reply: str, files: tuple[str, ...]) -> None:
    """Add REPLY, an authority's answer, to the signature of FILE that it is over.

    Without --authority it is only seen to be over that signature; whoever verifies FILE judges
    whom to trust.
    """
    stamps, path = timestamps(), Path(file)
    data, answer = _read(path), stamps.read_reply(reply)
    envelope = open_envelope(data, what=path.name)
    signature = envelope.signatures[stamps.stamped_signature(envelope, answer)]
    certificates = [known for name in files for known in stamps.load_certificates(name)]
    stamp = None
    if certificates:
        stamp = stamps.check_timestamp(answer, signature.value, certificates)
    stamped = stamps.attach(data, answer, what=path.name)
    if stamped == data:
        click.echo(
            f"the signature by {_by(signature)} has this time stamp already; nothing was written"
        )
        return
    store.write_bytes(path, stamped)
    click.echo(f"attached to the signature by {_by(signature)}")
    if stamp is None:
        click.echo("not verified: --authority gives a root certificate to verify it with")
    else:
        click.echo(f"signed before {stamp.time}, says {printable(stamp.authority)}")


def _by(signature: Signature) -> str:
    return printable(signature.keyid or "a key without name")


def _read(path: Path) -> bytes:
    return store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
