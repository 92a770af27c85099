"""``auditkit show``: what a signed file says, without verifying it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click
from rich.console import Console

from auditkit.cli.console import console, print_facts, print_table, print_words
from auditkit.cli.help import Command
from auditkit.cli.logged import logged_rows, read_logged
from auditkit.cli.options import TEXT, wide_option
from auditkit.cli.received import received_manifest
from auditkit.cli.spelling import counted
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.statements import Manifest, Statement, any_from_statement
from auditkit.records.fork_points import marked, views
from auditkit.records.manifest import BranchRecord, Extension, ProgramRecord, StudyManifest
from auditkit.records.nudge_size import spelled_scale
from auditkit.records.own_perturbation import OwnPerturbation
from auditkit.records.plan import StudyPlan, as_typed
from auditkit.records.plan_values import spelled_seeds
from auditkit.records.recording import RecordingManifest
from auditkit.records.registration import Registration
from auditkit.records.report import ReplayReport, SignedReport
from auditkit.records.rng import RngContract
from auditkit.signing.envelopes import Envelope, open_envelope


@click.command(cls=Command)
@click.argument("manifest", type=TEXT)
@wide_option
@click.option("--json", "as_json", is_flag=True, help="Print the signed statement as JSON.")
@click.pass_context
def show(ctx: click.Context, /, manifest: str, as_json: bool) -> None:
    """Print what MANIFEST says, or a plan, replay or countersignature. Nothing is verified."""
    path = ctx.with_resource(received_manifest(manifest)).path
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    envelope = open_envelope(data, what=path.name)
    record = any_from_statement(envelope.payload, what=path.name)
    if as_json:
        click.echo(envelope.payload, nl=sys.stdout.isatty())  # to a file, byte for byte
        return
    _print(path, envelope, record)


def _print(path: Path, envelope: Envelope, record: Statement) -> None:
    out = console()
    out.print("Not verified; `auditkit verify` does that.")
    if isinstance(record, StudyManifest):
        rows = [*_of_study(record), *_foot(record)]
    elif isinstance(record, RecordingManifest):
        rows = [*_of_recording(record), *_foot(record)]
    elif isinstance(record, Registration):
        rows = _of_plan(record)
    elif isinstance(record, ReplayReport):
        rows = _of_replay(record)
    else:
        rows = _of_report(record)
    shown = [(name, text) for name, text in (*_head(envelope, record), *rows) if text]
    print_facts(out, shown, width=30)  # some names come from the file
    if isinstance(record, StudyManifest):
        print_table(out, "branches", _branches(record))
    elif isinstance(record, RecordingManifest):
        print_table(out, "ranks", _ranks(record))
        _print_logged(out, path.parent, record)
    else:
        print_words(out, ("timestamp", "plan-bound", "countersignature", "verdict"))


def _branches(manifest: StudyManifest) -> list[tuple[str, ...]]:
    several = bool(manifest.plan.further_forks)
    return [
        (
            str(seed.seed),
            _branch_name(branch, view.plan.fork_at if several else None),
            branch.role,
            "-" if branch.version is None else str(branch.version),
            "completed" if branch.diverged_at is None else f"diverged at step {branch.diverged_at}",
            branch.order_sha256[:16],
        )
        for view in views(manifest)
        for seed in view.seeds
        for branch in seed.branches
    ]


def _branch_name(branch: BranchRecord, fork: int | None) -> str:
    name = branch.name if fork is None else marked(branch.name, fork)
    return as_typed(name) if branch.role in ("treatment", "broken") or fork is not None else name


def _ranks(manifest: RecordingManifest) -> list[tuple[str, ...]]:
    return [
        (
            str(rank.rank),
            str(rank.steps),
            str(rank.epochs),
            ", ".join(str(checkpoint.step) for checkpoint in rank.checkpoints) or "-",
            ", ".join(f"{n} ({how})" if how else f"{n}" for n, how in rank.resumptions) or "-",
            rank.order_sha256[:16],
        )
        for rank in manifest.ranks
    ]


def _print_logged(out: Console, folder: Path, manifest: RecordingManifest) -> None:
    """Print what the loop logged, where the file of it lies beside the manifest."""
    rows: list[tuple[str, ...]] = []
    for found in read_logged(folder, manifest):
        if found.problem:
            out.print(found.problem)
        rows += logged_rows(found)
    if rows:
        print_table(out, "logged", rows)


def facts_of(manifest: Manifest) -> list[tuple[str, str]]:
    """What a manifest says of plan, program, data and files: names and texts."""
    rows = _of_study(manifest) if isinstance(manifest, StudyManifest) else _of_recording(manifest)
    head = [
        ("run", f"{manifest.run.started} to {manifest.run.finished} (self-reported)"),
        ("producer", f"{manifest.producer.name} {manifest.producer.version}"),
    ]
    return [(name, text) for name, text in (*head, *rows, *_foot(manifest)[-1:]) if text]


Rows = list[tuple[str, str]]


def _head(envelope: Envelope, record: Statement) -> Rows:
    signers = [signature.keyid or "a key without name" for signature in envelope.signatures]
    n_stamps = sum(len(signature.timestamps) for signature in envelope.signatures)
    when = (
        f"{record.created}"
        if isinstance(record, Registration)
        else f"{record.run.started} to {record.run.finished}"
    )
    return [
        ("producer", f"{record.producer.name} {record.producer.version}"),
        ("made" if isinstance(record, Registration) else "run", f"{when} (self-reported)"),
        ("signatures by", ", ".join(signers) or "none"),
        ("timestamps", f"{n_stamps}; verify --authority judges them" if n_stamps else ""),
    ]


def _of_study(manifest: StudyManifest) -> Rows:
    plan, first = manifest.plan, manifest.seeds[0]
    return [
        *_plan_rows(plan, spelled_seeds(sorted(plan.seeds))),
        *(("seeds added to", _extended(extension)) for extension in manifest.extends),
        *_of_program(manifest.program),
        *((name, text) for name, text in first.data.loader.items()),
        ("data version", first.data.declared or "not given by the program"),
        *_of_state(first.components, first.rng),
    ]


def _extended(extension: Extension) -> str:
    return (
        f"{extension.manifest}, of {len(extension.seeds)} seeds, which had ended at "
        f"{extension.finished}: its results could be seen"
    )


def _declared(own: OwnPerturbation) -> str:
    return f"{own.name}, version {own.version}, declared to change {own.changes}"


def _plan_rows(plan: StudyPlan, seeds: str) -> Rows:
    forks = ", ".join(map(str, plan.forks))
    margins = ", ".join(f"{name} {margin:g}" for name, margin in plan.margins.items())
    return [
        ("plan", f"t0 {forks}, W {plan.window}, T {plan.horizon}, threads {plan.threads}"),
        ("further steps", ", ".join(str(step) for step in plan.probe_at)),
        ("evidence", plan.evidence_note),
        ("seeds", seeds),
        ("perturbations", "; ".join(spec.typed for spec in plan.perturbations)),
        ("causal break", plan.causal_break.typed if plan.causal_break else ""),
        ("segments", plan.segments.told if plan.segments else ""),
        ("of the program's own", "; ".join(map(_declared, plan.own_perturbations))),
        ("placebos", f"{plan.placebos} a seed, {spelled_scale(int(plan.placebo_scale))}"),
        ("augmentation", plan.augmentation_rng),
        ("primary metric", plan.primary_metric),
        ("equivalence margins", margins),
    ]


def _of_plan(record: Registration) -> Rows:
    plan, data = record.plan, record.data
    seeds = spelled_seeds(sorted(plan.seeds))
    if record.seeds_from == "timestamp":
        seeds = f"{len(plan.seeds)}, to be derived from a timestamp over this plan"
    read = "not read" if data.dataset_sha256 is None else f"{data.samples} samples, sha256 "
    return [
        *_plan_rows(plan, seeds),
        *_of_program(record.program),
        ("dataset", read + (data.dataset_sha256 or "")),
        ("probe sha256", data.probe_sha256),
        ("data version", data.declared or "not given by the program"),
    ]


def _of_replay(record: ReplayReport) -> Rows:
    found = [str(finding) for finding in record.findings]
    return [
        ("replay of", f"manifest sha256 {record.manifest_sha256}"),
        ("command", shlex.join(record.command)),
        ("compared", f"steps {record.first_step}..{record.last_step}, {_processes(record.ranks)}"),
        ("found", "; ".join(found) or "everything equal"),
    ]


def _of_report(record: SignedReport) -> Rows:
    report = record.report
    checks = [f"{check.number} {check.name} {check.status}" for check in report.checks]
    return [
        ("countersignature of", f"manifest sha256 {report.manifest_sha256}"),
        ("verdict", f"{report.verdict} (exit {report.exit_code})"),
        ("replay", report.replay),
        ("checks", ", ".join(checks)),
    ]


def _of_recording(manifest: RecordingManifest) -> Rows:
    world, first = manifest.world, manifest.ranks[0]
    settings = ", ".join(f"{name} {value}" for name, value in world.settings.items())
    loaders = [
        (f"loader {loader}" if loader else "training loader", ", ".join(_worded(facts)))
        for loader, facts in first.loaders.items()
    ]
    lost = [f"rank {one.rank}: {one.lost_note}" for one in manifest.ranks if one.lost_note]
    return [
        ("recording", f"{counted(first.steps, 'step')} of {_processes(world.size)}"),
        ("closed by auditkit close", manifest.closed_as or ""),
        ("lost checkpoints", "; ".join(lost)),
        ("backend", world.backend or "none"),
        ("distributed settings", settings),
        ("sharded", ", ".join(first.sharded)),
        ("evidence", manifest.evidence_note),
        ("seed, by the user", "not given" if manifest.seed is None else str(manifest.seed)),
        ("command", shlex.join(manifest.command) or "none"),
        (
            "resumed with",
            "; ".join(shlex.join(one) or "no arguments" for one in manifest.resumed_with),
        ),
        *_of_program(manifest.program, "at the start" if manifest.closed_as else "at the end"),
        *loaders,
        *_of_state(first.components, first.rng),
    ]


def _processes(number: int) -> str:
    return counted(number, "process", "processes")


def _worded(facts: dict[str, str]) -> list[str]:
    return [f"{name} {text}" for name, text in facts.items()]


def _of_program(program: ProgramRecord, when: str = "") -> Rows:
    """Its rows; ``when`` a loop's hyper-parameters were read, which a scheduler changes."""
    set_then = {"hyper-parameters": f"hyper-parameters {when}".rstrip()}
    git = f"{program.git_commit}{' with changes' if program.git_dirty else ''}"
    return [
        ("program", f"{program.target} {program.arguments or ''}"),
        ("code", ", ".join(file.name for file in program.code)),
        ("git", git if program.git_commit else "no repository"),
        *((set_then.get(name, name), text) for name, text in program.description.items()),
        ("probes", program.observed.told),
        ("measures", "; ".join(measure.told for measure in program.observed.measures)),
    ]


def _of_state(components: tuple[str, ...], rng: RngContract) -> Rows:
    return [
        ("components", ", ".join(components)),
        ("streams", ", ".join(stream.stream for stream in rng.streams)),
        ("not covered", "; ".join(rng.uncovered)),
    ]


def _foot(manifest: Manifest) -> Rows:
    environment = manifest.environment
    return [
        ("python", environment.python),
        ("packages", ", ".join(_worded(environment.packages))),
        ("hardware", ", ".join(_worded(environment.hardware))),
        ("files", f"{len(manifest.files)}, {sum(f.size for f in manifest.files):,} bytes"),
    ]
