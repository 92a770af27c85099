"""``auditkit export --format ro-crate``: a verified run as a folder or archive for readers."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from auditkit.cli.earlier_reports import GOOD, earlier_failure, read_statement, say_why_not
from auditkit.cli.options import crates
from auditkit.cli.pack import made_from_it
from auditkit.cli.received import received_manifest
from auditkit.cli.saying import say
from auditkit.cli.verify import verify_path
from auditkit.cli.verify_options import request_of
from auditkit.errors import StoreError, UsageError
from auditkit.files import store
from auditkit.files.outputs import Output, never
from auditkit.files.packing import pack
from auditkit.files.run_copies import copy_run
from auditkit.formats import canonical
from auditkit.formats.statements import manifest_from_statement
from auditkit.paper.attribution import Attribution
from auditkit.records.manifest import MANIFEST_NAME, FileRecord, StudyManifest
from auditkit.records.report import VerificationReport

_ENDING = ".zip"
_HINT = "name a new folder or .zip file"


def export_crate(
    ctx: click.Context,
    text: str,
    out: str,
    trust: tuple[tuple[str, ...], tuple[str, ...]],
    said: Attribution,
) -> None:
    """Verify a manifest without a replay, then write its crate.

    Args:
        ctx: The command's context.
        text: The manifest, as it was typed.
        out: Where the crate goes: a new folder, or a new file that ends in ``.zip``.
        trust: Key files and fingerprints that count.
        said: What only people can say.

    Raises:
        UsageError: When rocrate is not installed.
        StoreError: When it cannot be written there.
    """
    module = crates()
    path = ctx.with_resource(received_manifest(text)).path
    root = path.parent
    output = _output(out, path)
    report = _verified(ctx, path, trust)
    statement = read_statement(path, report)
    manifest = manifest_from_statement(statement, what=path.name)
    top = "study" if isinstance(manifest, StudyManifest) else "recording"
    beside = made_from_it(root)
    made = {
        module.METADATA_NAME: module.metadata(manifest, report, top, beside, said),
        module.STATEMENT_NAME: statement,
    }
    size = len(store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest"))
    itself = FileRecord(MANIFEST_NAME, "manifest", size, report.manifest_sha256)
    write = pack if _is_archive(out) else copy_run
    n_files = write(root, top, [*manifest.files, itself], beside, output, made)
    click.echo(f"crate: {out}, {n_files} files")
    if said.missing:
        say(f"a person must still say: {', '.join(said.missing)} (auditkit export --help)")
    signer = report.signed_by or "SHA256:..."
    folder = out if _is_archive(out) else str(Path(out) / top)
    line = shlex.join(["auditkit", "verify", folder, "--fingerprint", signer])
    click.echo(f"a reader: {line}")


def _is_archive(out: str) -> bool:
    return out.lower().endswith(_ENDING)


def _output(out: str, manifest: Path) -> Output:
    """The new folder or archive, once it is known that it may be written."""
    if out == "-":
        raise UsageError("--out -: a crate is not printed", hint=_HINT)
    if manifest.name != MANIFEST_NAME:
        raise UsageError(f"{manifest.name} is no {MANIFEST_NAME}", hint="give the run's folder")
    if os.path.lexists(out):
        raise StoreError(f"--out {out!r} exists already, and stays as it is", hint=_HINT)
    output = Output("--out", Path(out), never, "crate", manifest, _HINT)
    output.check()
    inside = Path(os.path.realpath(output.path)).is_relative_to(os.path.realpath(manifest.parent))
    if inside:
        raise UsageError(f"--out {out!r} lies in the run's own folder", hint="name one outside")
    return output


def _verified(
    ctx: click.Context, path: Path, trust: tuple[tuple[str, ...], tuple[str, ...]]
) -> VerificationReport:
    """The report on the manifest; where something is wrong, the command ends with its exit code."""
    keys, fingerprints = trust
    request = request_of(
        path,
        keys=keys,
        fingerprint=fingerprints,
        amount="none",
        allow_code=False,
        arguments=(),
        jobs=None,
        strict=False,
        threshold=1,
        authorities=(),
    )
    report = verify_path(path, request)
    failed = earlier_failure(path, report) if report.exit_code in GOOD else None
    if failed is not None:
        say("your own verification replayed it; a later one that verifies takes its place")
        report = failed
    if report.exit_code not in GOOD:
        say_why_not(path, report, "nothing is exported")
        ctx.exit(report.exit_code)
    return report
