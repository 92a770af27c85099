"""``auditkit timestamp``: ask for a time stamp of a signature, and attach it. Nothing is sent."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from auditkit.api.needed import timestamps
from auditkit.cli.help import Command, Group
from auditkit.cli.manifest_update import read_manifest, rewrite
from auditkit.cli.options import TEXT
from auditkit.cli.outputs import new_file
from auditkit.cli.received import manifest_path
from auditkit.errors import AuditError, StoreError
from auditkit.files import store
from auditkit.files.outputs import check_rewritable
from auditkit.formats import canonical
from auditkit.formats.quote import printable
from auditkit.signing import der
from auditkit.signing.envelopes import Signature, open_envelope, select_signature


@click.group(cls=Group)
def timestamp() -> None:
    """Time stamps of signatures by a third party (RFC 3161)."""


@timestamp.command(cls=Command)
@click.argument("file", type=TEXT)
@click.option(
    "--out", type=TEXT, help="The request; a new file. Default: FILE's name with .tsq, here."
)
@click.option(
    "--by", type=TEXT, help="Fingerprint of the key whose signature it is, where there are several."
)
def request(file: str, out: str | None, by: str | None) -> None:
    """Write a request for a time stamp of FILE's signature; you send it.

    FILE is a manifest, the folder of a run that holds one, or whatever else auditkit signed.
    """
    stamps, path = timestamps(), manifest_path(file)
    envelope = open_envelope(read_manifest(path), what=path.name)
    signature = envelope.signatures[select_signature(envelope, by)]
    # not beside FILE: what lies in a run's folder and is not in its manifest is reported
    query = path.with_suffix(".tsq").name if out is None else out
    try:
        new_file("--out", query, "request", path).write(stamps.request(signature.value))
    except StoreError as error:
        if not os.path.lexists(query):
            raise
        raise _in_the_way(query, signature) from error
    reply = str(Path(query).with_suffix(".tsr"))
    click.echo(f"request: {query}, for the signature by {_by(signature)}")
    click.echo("send it to an authority of your choice, then attach its reply:")
    header = "Content-Type: application/timestamp-query"
    send = ["curl", "-H", header, "--data-binary", f"@{query}", "-o", reply]
    click.echo(f"  {shlex.join(send)} AUTHORITY_URL")
    click.echo(f"  {shlex.join(['auditkit', 'timestamp', 'attach', file, reply])}")


@timestamp.command(cls=Command)
@click.argument("file", type=TEXT)
@click.argument("reply", type=TEXT)
@click.option(
    "--authority", "files", multiple=True, type=TEXT, help="Root certificate to check it with."
)
def attach(file: str, reply: str, files: tuple[str, ...]) -> None:
    """Add REPLY, an authority's answer, to the signature of FILE that it is over.

    FILE may be the folder of a run that holds a manifest. Without --authority REPLY is only seen
    to be over that signature; whoever verifies FILE judges whom to trust.
    """
    stamps, path = timestamps(), manifest_path(file)
    check_rewritable(path)
    envelope = open_envelope(read_manifest(path), what=path.name)
    answer = stamps.read_reply(reply)
    certificates = [known for name in files for known in stamps.load_certificates(name)]
    stamp = None
    with _naming(reply):
        position = stamps.stamped_signature(envelope, answer, what=path.name)
        signature = envelope.signatures[position]
        if certificates:
            stamp = stamps.check_timestamp(answer, signature.value, certificates)
    stamped = rewrite(path, lambda data: stamps.attach(data, answer, what=path.name))
    if stamped is None:
        click.echo(
            f"the signature by {_by(signature)} has this time stamp already; nothing was written"
        )
        return
    click.echo(f"attached to the signature by {_by(signature)}")
    if stamp is None:
        click.echo("not verified: --authority gives a root certificate to verify it with")
    else:
        click.echo(f"signed before {stamp.time}, says {printable(stamp.authority)}")


@contextmanager
def _naming(file: str) -> Iterator[None]:
    """Let errors say which file they are about."""
    try:
        yield
    except AuditError as error:
        error.where = file
        raise


def _in_the_way(query: str, signature: Signature) -> StoreError:
    """What to say of a file that lies where a request was to be written."""
    try:
        data = store.read_bytes(query, max_bytes=canonical.MAX_BYTES)
    except AuditError:
        data = b""
    hint = "name another file with --out"
    if not der.is_request(data):
        return StoreError(f"{query!r} exists already, and is no time stamp request", hint=hint)
    if hashlib.sha256(signature.value).digest() not in data:
        return StoreError(f"{query!r} exists already: a request for another signature", hint=hint)
    return StoreError(
        f"{query!r} exists already: a request for this very signature",
        hint=f"send that one, or {hint}",
    )


def _by(signature: Signature) -> str:
    return printable(signature.keyid or "a key without name")
