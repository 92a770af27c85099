"""``auditkit show``: what a manifest says, without verifying it."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from auditkit import canonical, store
from auditkit.cli.tables import console
from auditkit.manifests import from_statement
from auditkit.records.manifest import StudyManifest
from auditkit.signing import Envelope, open_envelope


@click.command()
@click.argument("manifest")
@click.option("--json", "as_json", is_flag=True, help="Print the signed statement as JSON.")
def show(manifest: str, as_json: bool) -> None:
    """Print what MANIFEST says. Nothing is verified."""
    path = Path(manifest)
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    envelope = open_envelope(data, what=path.name)
    record = from_statement(envelope.payload, what=path.name)
    if as_json:
        click.echo(envelope.payload, nl=sys.stdout.isatty())  # to a file, byte for byte
        return
    _print(envelope, record)


def _print(envelope: Envelope, manifest: StudyManifest) -> None:
    out = console()
    out.print("Not verified; `auditkit verify` does that.")
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=False)
    table.add_column(overflow="fold", max_width=30)  # some headings come from the file
    table.add_column(overflow="fold")
    for heading, text in _summary(envelope, manifest):
        table.add_row(heading, text)
    out.print(table)
    branches = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("seed", "branch", "role", "version", "status", "order sha256"):
        branches.add_column(heading, overflow="fold")
    for seed in manifest.seeds:
        for branch in seed.branches:
            at = branch.diverged_at
            branches.add_row(
                str(seed.seed),
                branch.name,
                branch.role,
                "-" if branch.version is None else str(branch.version),
                "completed" if at is None else f"diverged at step {at}",
                branch.order_sha256[:16],
            )
    out.print(branches)


def _summary(envelope: Envelope, manifest: StudyManifest) -> list[tuple[str, str]]:
    plan, program, first = manifest.plan, manifest.program, manifest.seeds[0]
    environment = manifest.environment
    signers = [signature.keyid or "a key without name" for signature in envelope.signatures]
    git = f"{program.git_commit}{' with changes' if program.git_dirty else ''}"
    rows = [
        ("producer", f"{manifest.producer.name} {manifest.producer.version}"),
        ("run", f"{manifest.run.started} to {manifest.run.finished} (self-reported)"),
        ("signatures by", ", ".join(signers) or "none"),
        ("plan", f"t0 {plan.fork_at}, W {plan.window}, T {plan.horizon}, threads {plan.threads}"),
        ("seeds", ", ".join(str(seed) for seed in plan.seeds)),
        ("perturbations", ", ".join(plan.treatment_names)),
        ("placebos", f"{plan.placebos} a seed, scale {plan.placebo_scale}"),
        ("augmentation", plan.augmentation_rng),
        ("program", f"{program.target} {program.arguments or ''}"),
        ("code", ", ".join(file.name for file in program.code)),
        ("git", git if program.git_commit else "no repository"),
        *((name, text) for name, text in program.description.items()),
        *((name, text) for name, text in first.data.loader.items()),
        ("data version", first.data.declared or "not given by the program"),
        ("components", ", ".join(first.components)),
        ("streams", ", ".join(stream.stream for stream in first.rng.streams)),
        ("not covered", "; ".join(first.rng.uncovered)),
        ("python", environment.python),
        ("packages", ", ".join(f"{name} {v}" for name, v in environment.packages.items())),
        ("hardware", ", ".join(f"{name} {v}" for name, v in environment.hardware.items())),
        ("files", f"{len(manifest.files)}, {sum(f.size for f in manifest.files):,} bytes"),
    ]
    return [(name, text) for name, text in rows if text]
