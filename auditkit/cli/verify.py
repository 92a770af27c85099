"""``auditkit verify``: the ten checks, then the estimands."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from auditkit import canonical, store
from auditkit.cli.options import TAIL, CommandWithTail, default_jobs, parse_arguments
from auditkit.cli.progress import StepProgress
from auditkit.cli.tables import print_report
from auditkit.errors import UsageError
from auditkit.evidence import RunEvidence
from auditkit.records.manifest import SIGNER_NAME
from auditkit.records.perturbation import PLUGINS
from auditkit.records.report import VerificationReport
from auditkit.replay import ReplayOutcome, ReplayRequest, replay
from auditkit.signing import TrustedKey, key_by_fingerprint, load_public_keys, machine_trust
from auditkit.verify import VerifyRequest, verify

_SHARED_OPTIONS = (
    click.option("--key", "keys", multiple=True, help="Public key file to trust; repeatable."),
    click.option("--fingerprint", multiple=True, help="SHA256:... from the paper; repeatable."),
    click.option("--allow-code", is_flag=True, help="Execute code signed by somebody else's key."),
    click.option("--arg", "arguments", multiple=True, help="name=value: where data lie here."),
    click.option("--jobs", type=int, help="Seeds that are replayed at a time."),
    click.option("--strict", is_flag=True, help="No machine trust; unlisted files are failures."),
)


def verification_options(replay: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The options of every command that verifies, for :func:`request_of`.

    Args:
        replay: Default of ``--replay``.
    """
    amount = click.option(
        "--replay",
        "amount",
        default=replay,
        show_default=True,
        help="all, none, or how many branches to draw.",
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed((*_SHARED_OPTIONS[:2], amount, *_SHARED_OPTIONS[2:])):
            command = option(command)
        return command

    return add


@click.command("verify", cls=CommandWithTail)
@click.argument("manifest")
@verification_options(replay="all")
@click.option("--replay-seed", type=int, help="Repeat a draw of --replay N.")
@click.option("--all", "everything", is_flag=True, help="Print every estimate.")
@click.option("--json", "json_out", help="Write the report as JSON to a file, or - for stdout.")
@click.pass_context
def verify_command(
    ctx: click.Context,
    /,
    manifest: str,
    replay_seed: int | None,
    everything: bool,
    json_out: str | None,
    **options: Any,
) -> None:
    """Verify MANIFEST: signature, files, pairing, replay; then compute the estimands.

    The study of a script is replayed with the command that follows `--`, in which {seed} stands
    for the seed; a recorded command is never run.

    Exit codes: 0 nothing wrong, 1 a check failed, 2 wrong use, 3 signed by a key that is not
    trusted, 4 not signed, 5 malformed, 6 cannot decide.
    """
    path = Path(manifest)
    request = replace(request_of(path, replay_seed=replay_seed, **options), command=ctx.meta[TAIL])
    report = verify_path(path, request)
    if json_out == "-":
        click.echo(canonical.dumps(canonical.to_dict(report)).decode("ascii"))
    else:
        print_report(report, everything=everything)
        if json_out:
            store.write_bytes(Path(json_out), canonical.dumps(canonical.to_dict(report)))
    ctx.exit(report.exit_code)


def request_of(  # noqa: PLR0913 # one argument an option
    path: Path,
    *,
    keys: tuple[str, ...],
    fingerprint: tuple[str, ...],
    amount: str,
    allow_code: bool,
    arguments: tuple[str, ...],
    jobs: int | None,
    strict: bool,
    replay_seed: int | None = None,
) -> VerifyRequest:
    """What the options of :func:`verification_options` ask for.

    Raises:
        UsageError: On a value that means nothing.
    """
    n_replay = _amount(amount)
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {jobs}")
    return VerifyRequest(
        trusted=trusted_keys(path, keys, fingerprint, strict=strict),
        replay=n_replay,
        replay_seed=replay_seed,
        strict=strict,
        allow_code=allow_code,
        arguments=parse_arguments(arguments),
        jobs=jobs if jobs is not None else 0,
    )


def verify_path(path: Path, request: VerifyRequest) -> VerificationReport:
    """Verify with replay and estimands where they are asked for, showing progress."""
    if request.replay == "none":
        return verify(path, request)
    # Lazy for start-up time: scipy and, for plug-ins, torch.
    from auditkit.estimands import estimate  # noqa: PLC0415

    if importlib.metadata.entry_points(group=PLUGINS):
        from auditkit.perturb.registry import registry  # noqa: PLC0415

        declarations = {name: known.declaration for name, known in registry().items()}
        return verify(path, request, _replay_with_progress, estimate, declarations)
    return verify(path, request, _replay_with_progress, estimate)


def trusted_keys(
    path: Path, keys: tuple[str, ...], fingerprints: tuple[str, ...], *, strict: bool
) -> list[TrustedKey]:
    """The keys that count: named ones; this machine's only where none are named."""
    named = [key for name in keys for key in load_public_keys(name)]
    beside = path.parent / SIGNER_NAME
    named += [key_by_fingerprint(wanted, beside) for wanted in fingerprints]
    if named:
        own = {key.fingerprint for key in machine_trust() if key.own} if not strict else set()
        return [
            TrustedKey(k.fingerprint, k.public_key, k.source, k.own or k.fingerprint in own)
            for k in named
        ]
    return [] if strict else machine_trust()


def _replay_with_progress(run: RunEvidence, request: ReplayRequest) -> ReplayOutcome:
    plan = run.manifest.plan
    held = plan.horizon - plan.fork_at
    total = sum(plan.horizon + held * len(names) for names in request.choice.values())
    jobs = request.jobs or default_jobs(plan.threads, len(request.choice))
    with StepProgress(total, "replay") as progress:
        return replay(run, replace(request, jobs=jobs), progress.report)


def _amount(text: str) -> str | int:
    if text in ("all", "none"):
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise UsageError(f"--replay {text!r} is not all, none or a whole number of at least 1")
