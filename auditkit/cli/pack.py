"""``auditkit pack``: a run as one archive, which ``auditkit verify`` takes as it is."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from auditkit.cli.help import Command
from auditkit.cli.options import TEXT
from auditkit.cli.outputs import new_file
from auditkit.cli.received import manifest_path
from auditkit.errors import UsageError
from auditkit.files import artifacts, store
from auditkit.files.packing import pack
from auditkit.formats import canonical
from auditkit.formats.statements import manifest_from_statement
from auditkit.records.file_names import is_replay_result
from auditkit.records.manifest import MANIFEST_NAME, SIGNER_NAME, StudyManifest
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.keys import is_fingerprint
from auditkit.verification.countersigning import is_countersignature

_ENDING = ".zip"


@click.command("pack", cls=Command)
@click.argument("folder", metavar="DIR", type=TEXT)
@click.option("--out", type=TEXT, help="The archive, a new .zip file; by default beside DIR.")
def pack_command(folder: str, out: str | None) -> None:
    """Pack the study or recording in DIR into a .zip that `auditkit verify` takes as it is.

    It holds the files that the manifest lists, the manifest with its signatures, signer.pub,
    countersignatures and replays, and nothing else. Equal folders give equal archives. What does
    not match the manifest is not packed; whether its signature is good is for `auditkit verify`.
    """
    path = manifest_path(folder)
    root = path.parent
    if path.name != MANIFEST_NAME:
        raise UsageError(f"{path.name} is no folder with a {MANIFEST_NAME}", hint="give the folder")
    archive = out if out is not None else str(_beside(root))
    output = new_file("--out", archive, "archive", path)
    if not archive.lower().endswith(_ENDING):
        raise UsageError(f"--out {archive!r} does not end in {_ENDING}", hint="name a .zip file")
    envelope = open_envelope(
        store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest"), what=path.name
    )
    manifest = manifest_from_statement(envelope.payload, what=path.name)
    top = "study" if isinstance(manifest, StudyManifest) else "recording"
    n_files = pack(root, top, manifest.files, made_from_it(root), output)
    size, sha256 = store.stream_sha256(output.path)
    claimed = [signature.keyid or "" for signature in envelope.signatures]
    signer = next(filter(is_fingerprint, claimed), "SHA256:...")
    click.echo(f"archive: {archive}, {n_files} files, {size:,} bytes")
    click.echo(f"sha256: {sha256}")
    line = shlex.join(["auditkit", "verify", archive, "--fingerprint", signer])
    click.echo(f"a reader: {line}")


def _beside(root: Path) -> Path:
    """The archive's name: the folder's own, also where it was given as ``.``."""
    whole = root.resolve()
    name = f"{whole.name or 'run'}{_ENDING}"
    return root.parent / name if root.name not in ("", "..") else whole.parent / name


def made_from_it(root: Path) -> list[str]:
    """Names of what lies beside the listed files and was made from them."""
    there = set(artifacts.names_in(root))
    signer = [SIGNER_NAME] if SIGNER_NAME in there else []
    made = sorted(name for name in there if is_countersignature(name) or is_replay_result(name))
    return [MANIFEST_NAME, *signer, *made]
