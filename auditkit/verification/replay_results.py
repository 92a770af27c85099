"""Signed replays beside a recording: whose word each is, and what it says.

``auditkit replay`` leaves one file a replay, ``replay-KEY-TIME.json``, and replaces none: a later
one takes nothing from an earlier one. Earlier builds wrote ``replay.json``, which is read too.

Rules that it keeps:

* nobody vouches for himself: *everything was equal* counts only if a trusted key signed it whose
  holder is none of those who signed the recording (keys that share a principal are one person's);
* what speaks against a recording counts from whomever is trusted, its author included;
* that the author could decide nothing on some machine says nothing of the recording;
* what nobody trusted signed counts neither way, so that a bystander can take nothing away.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from auditkit.errors import ArtifactMismatch, ArtifactMissing, AuditError, StoreError
from auditkit.evidence.verdicts import as_finding
from auditkit.files import artifacts
from auditkit.formats.statements import record_from_statement
from auditkit.records.file_names import is_replay_result
from auditkit.records.report import REPLAY_NAME, Finding, ReplayReport, ReplaySays, StatedReplay
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.keys import TrustedKey
from auditkit.signing.signatures import check_signatures, others_than

if TYPE_CHECKING:
    from auditkit.records.recording import RecordingManifest

#: Replays that are read, and the bytes of each: anybody can have put them there.
MAX_REPLAYS = 100
MAX_BYTES = 2**24

#: What a replay can say, what speaks against the recording first.
_SAYINGS: tuple[ReplaySays, ...] = ("impossible", "different", "undecided", "in part", "equal")
AGAINST: tuple[ReplaySays, ...] = ("impossible", "different")

AUTHOR_SAYS = "the author says he replayed it"


@dataclass(frozen=True)
class JudgedReplay:
    """A replay: what the report says of it, and what was signed (None where it is unreadable)."""

    stated: StatedReplay
    result: ReplayReport | None

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What it asks check 8 to say."""
        if self.result is None or self.stated.says not in (*AGAINST, "undecided"):
            return ()
        if self.stated.says == "impossible":
            return (Finding(self.stated.remark, self.stated.file),)
        # Only these two codes mean something here: what differs, and what cannot be decided.
        return tuple(
            replace(finding, exit_code=finding.exit_code if finding.exit_code == 6 else 1)
            for finding in self.result.findings
        )


@dataclass(frozen=True)
class Readers:
    """How replays are judged: by which keys, and who vouches for nothing.

    Attributes:
        trusted: The keys that the verifier trusts.
        authors: Those of them that signed the recording; none where check 2 failed, and then
            nothing counts.
        statement_sha256: SHA-256 of what is signed in the recording's manifest.
    """

    trusted: Sequence[TrustedKey]
    authors: Sequence[TrustedKey]
    statement_sha256: str | None


def replay_result_name(fingerprint: str, now: datetime) -> str:
    """Name of a replay's result: by who signs it, and when."""
    digest = base64.b64decode(fingerprint.removeprefix("SHA256:") + "=").hex()
    return f"replay-{digest[:16]}-{now:%Y%m%dT%H%M%S%f}Z.json"


def read_replays(
    root: Path, recorded: RecordingManifest, readers: Readers
) -> tuple[list[JudgedReplay], int]:
    """The replays beside a recording, contradictions first, and how many were left unread.

    Args:
        root: The recording's folder.
        recorded: What its manifest says.
        readers: How they are judged.
    """
    try:
        listed = [name for name in artifacts.list_files(root) if is_replay_result(name)]
    except StoreError:
        listed = []
    names = list(dict.fromkeys([REPLAY_NAME, *listed]))
    found = []
    for name in names[: MAX_REPLAYS + 1]:
        try:
            found.append(_read(root, name, recorded, readers))
        except ArtifactMissing:
            continue
        except AuditError as error:
            remark = f"a replay that does not count: {as_finding(error)}"
            stated = StatedReplay(name, None, False, None, None, False, remark)
            found.append(JudgedReplay(stated, None))
    return sorted(found, key=_rank), max(0, len(names) - MAX_REPLAYS - 1)


def _rank(judged: JudgedReplay) -> tuple[bool, bool, int, str, str]:
    """Contradictions first, then what counts, then the author's word; within these, by time."""
    stated = judged.stated
    strength = len(_SAYINGS) if stated.says is None else _SAYINGS.index(stated.says)
    return not stated.counts, not stated.by_author, strength, stated.finished or "", stated.file


def _read(root: Path, name: str, recorded: RecordingManifest, readers: Readers) -> JudgedReplay:
    """Read and judge one.

    Raises:
        AuditError: When it is not signed by a trusted key, unreadable, or about something else.
    """
    data = artifacts.safe_read(root, name, max_bytes=MAX_BYTES)
    envelope = open_envelope(data, what=name)
    signers = check_signatures(envelope, readers.trusted).signers
    result = record_from_statement(ReplayReport, envelope.payload, what=name)
    if result.statement_sha256 != readers.statement_sha256:
        raise ArtifactMismatch(
            "about another manifest",
            expected=readers.statement_sha256,
            found=result.statement_sha256,
            where=name,
        )
    others = others_than(readers.authors, signers, readers.trusted)
    by_author = bool(readers.authors) and not others
    says = _says(result, recorded)
    counts = bool(readers.authors) and (says in AGAINST or not by_author)
    text = _text(result, recorded, says)
    if by_author:
        text = f"{AUTHOR_SAYS} ({text})"
    if not readers.authors:
        text += "; it does not count: the recording's own signature is not in order"
    elif not counts:
        text += "; nobody vouches for himself"
    signer = (others or list(signers))[0].fingerprint
    stated = StatedReplay(name, signer, by_author, says, result.run.finished, counts, text)
    return JudgedReplay(stated, result)


def _says(result: ReplayReport, recorded: RecordingManifest) -> ReplaySays:
    steps = max((rank.steps for rank in recorded.ranks), default=0)
    if any(finding.exit_code != 6 for finding in result.findings):
        return "different"
    if result.findings:
        return "undecided"
    is_range = result.first_step <= result.last_step + 1 and result.last_step <= steps
    most = sum(len(rank.checkpoints) for rank in recorded.ranks)
    if not is_range or result.ranks > len(recorded.ranks) or (result.checkpoints or 0) > most:
        return "impossible"
    is_every_step = (result.first_step, result.last_step) == (1, steps)
    is_every_rank = result.ranks == recorded.world.size == len(recorded.ranks)
    # Of a recording that was closed afterwards no replay compares the chains and the state at its
    # end by SHA-256: its command goes on where the recorded process died.
    is_whole = is_every_step and is_every_rank and recorded.closed_as is None
    return "equal" if is_whole else "in part"


def _text(result: ReplayReport, recorded: RecordingManifest, says: ReplaySays) -> str:
    span = f"steps {result.first_step}..{result.last_step} of {processes(result.ranks)}"
    if says == "impossible":
        most = max((rank.steps for rank in recorded.ranks), default=0)
        size = processes(len(recorded.ranks))
        there = sum(len(rank.checkpoints) for rank in recorded.ranks)
        if (result.checkpoints or 0) > there:
            return f"says that {result.checkpoints} checkpoints were equal; there are {there}"
        return f"says that {span} were equal; the recording has steps 1..{most} of {size}"
    if says == "different":
        return f"{span} re-executed, with differences"
    if says == "undecided":
        return f"{span} re-executed, with differences that decide nothing"
    if says == "in part":
        closed = ", of a recording that was closed afterwards"
        of = "" if recorded.closed_as is None else closed
        return f"{'' if of else 'only '}{span} re-executed, and equal{of}"
    steps = f"{result.last_step} step{'' if result.last_step == 1 else 's'}"
    n_all = sum(len(rank.checkpoints) for rank in recorded.ranks)
    if result.checkpoints:
        number = f"{result.checkpoints}{f' of {n_all}' if result.checkpoints < n_all else ''}"
        steps += f" and {number} checkpoint{'' if n_all == 1 else 's'}"
    return f"re-executed with the user's command: {steps} equal{_left_out(result, n_all)}"


def _left_out(result: ReplayReport, n_all: int) -> str:
    """What a replay did not compare, beside the steps."""
    if result.checkpoints is None:
        return (
            "; by an earlier build, which compared no checkpoints, no number of epochs and no "
            "starts of random streams"
        )
    return (
        ""
        if result.checkpoints == n_all
        else "; not every section of the other checkpoints was compared"
    )


def processes(number: int) -> str:
    """A number of processes, in words."""
    return f"{number} process{'' if number == 1 else 'es'}"
