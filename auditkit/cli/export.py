"""``auditkit export``: a manifest in the form that another tool takes."""

from __future__ import annotations

from typing import Any

import click

from auditkit.cli.crate import export_crate
from auditkit.cli.help import Command
from auditkit.cli.options import TEXT
from auditkit.cli.outputs import destination
from auditkit.cli.received import manifest_path
from auditkit.errors import UsageError
from auditkit.files import store
from auditkit.files.outputs import never
from auditkit.formats import canonical
from auditkit.paper.attribution import parse_attribution
from auditkit.signing.sigstore_bundle import to_bundle

_CRATE = "ro-crate"

#: Options that are called otherwise in this module.
_OPTIONS = {"license_text": "license", "authors": "author"}


@click.command(cls=Command)
@click.argument("manifest", type=TEXT)
@click.option("--format", "form", type=click.Choice(["sigstore", _CRATE]), required=True)
@click.option("--out", required=True, type=TEXT, help="File to write, or folder; a new one.")
@click.option(
    "--by", type=TEXT, help="Fingerprint of the key whose signature it is, where there are several."
)
@click.option(
    "--key", "keys", multiple=True, type=TEXT, help="Public key file to trust; repeatable."
)
@click.option(
    "--fingerprint", multiple=True, type=TEXT, help="SHA256:... of a key to trust; repeatable."
)
@click.option("--title", type=TEXT, help="Title of the crate.")
@click.option("--description", type=TEXT, help="What the run is about.")
@click.option("--license", "license_text", type=TEXT, help="SPDX identifier or address.")
@click.option(
    "--author", "authors", multiple=True, type=TEXT, help="'NAME' or 'NAME <ORCID>'; repeatable."
)
@click.option("--published", type=TEXT, help="YYYY-MM-DD; today by default.")
@click.pass_context
def export(  # the rest is what people say of a crate
    ctx: click.Context,
    /,
    manifest: str,
    form: str,
    out: str,
    by: str | None,
    keys: tuple[str, ...],
    fingerprint: tuple[str, ...],
    **said: Any,
) -> None:
    """Write MANIFEST as a Sigstore bundle, or its run as an RO-Crate.

    sigstore: the same payload, one signature, its time stamps. Nothing is verified. A verifier of
    the bundle must be given the key.

    ro-crate: the run's folder with what describes it (Process Run Crate), for Zenodo and artifact
    committees, as a folder or, where --out ends in .zip, an archive. It is verified without a
    replay before; where it does not verify nothing is written, and the exit code is that of
    `auditkit verify`. What only people can say (title, licence, authors) is marked where no option
    gives it.
    """
    of_bundles = {"by": by}
    of_crates = {"key": keys, "fingerprint": fingerprint, **said}
    given = of_bundles if form == _CRATE else of_crates
    idle = [f"--{_OPTIONS.get(name, name)}" for name, value in given.items() if value]
    if idle:
        raise UsageError(f"{', '.join(idle)} would do nothing with --format {form}")
    if form == _CRATE:
        export_crate(ctx, manifest, out, (keys, fingerprint), parse_attribution(**said))
        return
    path = manifest_path(manifest)
    bundle_to = destination("--out", out, never, "bundle", path)
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    bundle_to.write(to_bundle(data, by, what=path.name))
    click.echo(f"bundle: {out}", err=bundle_to.is_stdout)
