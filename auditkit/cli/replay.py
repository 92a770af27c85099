"""``auditkit replay``: run a recorded loop again, and compare it as it runs.

``--json`` writes one object: what was found
(:class:`auditkit.replay.recording_replay.RecordingReplay`), with ``equal``, ``exit_code`` and
``manifest_sha256``.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from auditkit.cli.console import console, print_words
from auditkit.cli.options import TAIL, TEXT, WHOLE, CommandWithTail
from auditkit.cli.outputs import REPLAY, destination, result_beside
from auditkit.cli.passwords import signing_key_of
from auditkit.cli.progress import StepProgress
from auditkit.cli.received import manifest_path
from auditkit.cli.saying import say
from auditkit.cli.verify_options import trusted_keys
from auditkit.diagnose.telling import replay_lines
from auditkit.errors import UsageError
from auditkit.evidence.reader import RecordingEvidence
from auditkit.evidence.verdicts import PRECEDENCE, exit_code_of
from auditkit.files import store
from auditkit.files.outputs import Output
from auditkit.formats import canonical, structure
from auditkit.formats.quote import as_utf8
from auditkit.formats.redaction import redact_text
from auditkit.formats.statements import manifest_from_statement, to_statement
from auditkit.processes.commands import Commands
from auditkit.records.job import Progress
from auditkit.records.manifest import SCHEMA_VERSION, Producer, RunTimes
from auditkit.records.recording import RecordingManifest
from auditkit.records.report import ReplayReport, VerificationReport
from auditkit.replay.live_comparison import CommandConfig
from auditkit.replay.recording_replay import RecordingReplay, replay_recording
from auditkit.signing.envelopes import open_envelope, sign_statement
from auditkit.signing.trust import SigningKey
from auditkit.verification.procedure import VerifyRequest, verify
from auditkit.verification.replay_results import replay_result_name
from auditkit.version import __version__

_TAIL_HINT = "your command comes after --: auditkit replay MANIFEST -- python train.py"
_BEGINS = "starting the command ..."

_OWN_WORD = (
    "this key signed the recording itself, so that this is the author's own word: verify stays "
    "integrity-only until somebody else has replayed it"
)


class _Replay(CommandWithTail):
    """Says what is meant where the command stands before no ``--``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As of every command that takes a tail."""
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            if "--" in args:
                raise
            raise UsageError(error.format_message().rstrip("."), hint=_TAIL_HINT) from error


@click.command(cls=_Replay)
@click.argument("manifest", type=TEXT)
@click.option(
    "--trust", "trusted", multiple=True, type=TEXT, help="Public key file to trust; repeatable."
)
@click.option(
    "--fingerprint", multiple=True, type=TEXT, help="SHA256:... from the paper; repeatable."
)
@click.option(
    "--key", type=TEXT, help="Private key to sign with; else $AUDITKIT_KEY, else this machine's."
)
@click.option("--steps", type=WHOLE, help="Compare only so many steps; by default all.")
@click.option("--no-write", is_flag=True, help="Leave no result beside the manifest.")
@click.option("--verbose", is_flag=True, help="Pass on what the command writes, to stderr.")
@click.option(
    "--json", "json_out", type=TEXT, help="Write what was found as JSON to a file, or - for stdout."
)
@click.pass_context
def replay(
    ctx: click.Context, /, manifest: str, key: str | None, no_write: bool, **options: Any
) -> None:
    """Run the command after `--` again and compare every step with the recording of MANIFEST.

    The command runs here and is yours: a recorded command line is never run. What was found is
    signed and left beside the manifest, where `auditkit verify` looks for it; nothing that lies
    there is replaced. That all was equal counts from somebody who did not sign MANIFEST.

    Exit codes: 0 equal, 1 different, 2 wrong use, 3 signed by a key that is not trusted,
    4 not signed, 5 malformed, 6 cannot decide: the environment differs, or no loop was run.
    """
    command: tuple[str, ...] = ctx.meta[TAIL]
    if not command:
        raise UsageError("give the command after --", hint=_TAIL_HINT)
    if options["steps"] is not None and options["steps"] < 1:
        raise UsageError("--steps is at least 1")
    path = manifest_path(manifest)
    json_to = destination("--json", options["json_out"], REPLAY, "result", path)
    evidence, verified = _verified(ctx, path, options["trusted"], options["fingerprint"])
    signer = None if no_write else signing_key_of(key)
    began = datetime.now(UTC)
    if signer is not None:
        _result_file(path, signer, began).check()
    found = _run(evidence, command, options["steps"], verbose=options["verbose"])
    if signer is not None:
        ended = datetime.now(UTC)
        run = RunTimes.ending(_text_of(began), _text_of(ended))
        statement = to_statement(_record(found, command, verified, run))
        result = _result_file(path, signer, ended)
        result.write(sign_statement(statement, signer.key))
    code = _exit_code(found)
    head = {"equal": found.equal, "exit_code": code, "manifest_sha256": verified.manifest_sha256}
    data = canonical.dumps({**head, **structure.to_dict(found)})
    if not json_to.is_stdout:
        _print(found, evidence.manifest)
    json_to.write(data)
    if signer is not None:
        say(f"wrote {result.path}, signed by {signer.fingerprint}")
        if found.equal and signer.fingerprint == verified.signed_by:
            say(_OWN_WORD)
    ctx.exit(code)


def _run(
    evidence: RecordingEvidence, command: tuple[str, ...], steps: int | None, *, verbose: bool
) -> RecordingReplay:
    most = max(rank.steps for rank in evidence.manifest.ranks)
    total = most if steps is None else min(steps, most)
    with Commands() as commands, StepProgress(total, "replay", _BEGINS) as progress:

        def report(step: int) -> None:
            done = min(step, total)
            progress.report(Progress(evidence.manifest.seed or 0, "recording", done, done, total))

        config = CommandConfig(commands, command, {}, sys.stderr.buffer if verbose else None)
        return replay_recording(evidence, config, report, steps)


def _result_file(manifest: Path, signer: SigningKey, time: datetime) -> Output:
    """Where the signed result goes: a new file beside the manifest."""
    name = replay_result_name(signer.fingerprint, time)
    return result_beside(manifest, name, "replay's result", "give --no-write")


def _verified(
    ctx: click.Context, path: Path, trusted: tuple[str, ...], fingerprints: tuple[str, ...]
) -> tuple[RecordingEvidence, VerificationReport]:
    """The recording, if checks 1 to 5 pass; what an earlier replay says does not matter."""
    keys = trusted_keys(path, trusted, fingerprints, strict=False)
    report = verify(path, VerifyRequest(trusted=keys, replay="none"))
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    record: RecordingManifest | None = None
    if report.checks[0].status == "passed":
        found = manifest_from_statement(open_envelope(data, what=path.name).payload, what=path.name)
        if not isinstance(found, RecordingManifest):
            raise UsageError(
                "the manifest is of a study, not of a recording",
                hint="`auditkit verify` replays a study",
            )
        record = found
    checks = report.checks[:5]
    code = exit_code_of(checks)
    if record is None or code or any(check.status != "passed" for check in checks):
        for check in checks:
            for finding in check.findings:
                say(f"not replayed: check {check.number} {check.name}: {finding}")
        ctx.exit(code or 1)
    return RecordingEvidence(path.parent, record), report


def _record(
    found: RecordingReplay, command: tuple[str, ...], verified: VerificationReport, run: RunTimes
) -> ReplayReport:
    return ReplayReport(
        schema_version=SCHEMA_VERSION,
        producer=Producer("auditkit", __version__),
        run=run,
        manifest_sha256=verified.manifest_sha256,
        statement_sha256=verified.statement_sha256 or "",
        command=tuple(as_utf8(redact_text(argument)) for argument in command),
        ranks=found.ranks,
        first_step=1,
        last_step=found.last_step,
        findings=found.findings,
        environment=found.environment,
        checkpoints=found.checkpoints,
    )


def _exit_code(found: RecordingReplay) -> int:
    asked = {finding.exit_code for finding in found.findings}
    return next((code for code in PRECEDENCE if code in asked), 0)


def _print(found: RecordingReplay, manifest: RecordingManifest) -> None:
    out = console()
    for line in replay_lines(found, manifest):
        out.print(line)
    kinds = {part.kind: None for part in found.partings}  # in their order
    print_words(out, (*kinds, "rank", "component", "step") if kinds else ("row", "commitment"))


def _text_of(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
