"""Where ``auditkit verify`` leaves its report, and where other commands find it again.

A report is signed by nobody. So there are two copies: ``report.json`` beside the manifest, for
people and for other tools, where a bystander could put one as well; and one in this user's cache
folder (``$XDG_CACHE_HOME/auditkit``, else ``~/.cache/auditkit``) under the manifest's SHA-256. Only
the latter is ever found again by itself: it was made here, and of this very manifest.

No copy names the user's home folder: what lies beside a manifest may be handed on.

A weaker report does not replace a stronger one of the same manifest, since a replay may have taken
hours; one that says that something is wrong replaces any, and where a replay failed, none replaces
it that did not replay.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import get_args

from auditkit.errors import AuditError, StoreError
from auditkit.files import store
from auditkit.files.outputs import Output, json_with
from auditkit.formats import canonical, structure
from auditkit.formats.redaction import redact_text
from auditkit.records.report import VerificationReport
from auditkit.records.settings import Passing
from auditkit.verification.crate_around import CRATE_NAME

REPORT_NAME = "report.json"

_OF_REPORTS = "auditkit.verification.report_json"  # loaded where an earlier one may say more

#: Recognises a report, which a later one may replace.
IS_REPORT = json_with("verdict", "exit_code", "manifest_sha256", "checks")

#: Verdicts of a report that found something wrong, and of one that did not replay; the check.
_FAILED, _NOT_REPLAYED, _REPLAY = "failed", "integrity-only", 8

#: Exit codes of reports that say nothing of the manifest: nobody trusted, consent, data missing.
_NOTHING_SAID = (3, 6)


def keep(
    report: VerificationReport, manifest: Path | None, env: Mapping[str, str] | None = None
) -> Path | None:
    """Leave a report for later commands, beside its manifest and in the user's cache folder.

    Args:
        report: The report.
        manifest: Its manifest; None where nothing is to lie beside it, as in an archive.
        env: Environment variables; default this process's.

    Returns:
        Where it lies: beside the manifest if it may, and in no RO-Crate, else in the cache folder;
        None where it can lie nowhere, is of no manifest, or because an earlier one says more.
    """
    if report.statement_sha256 is None:
        return None  # of what is no manifest
    data = canonical.dumps(_anonymous(structure.to_dict(report)))
    kept = None
    with suppress(StoreError):
        path = cached(report.manifest_sha256, env)
        store.make_folder(path.parent, private=True)
        kept = _write(report, data, Output("the report", path, IS_REPORT, "report"))
    if manifest is not None and not is_inside_crate(manifest):
        with suppress(StoreError):
            path = manifest.parent / REPORT_NAME
            output = Output("the report", path, IS_REPORT, "report", manifest)
            kept = _write(report, data, output) or kept
    return kept


def is_inside_crate(manifest: Path) -> bool:
    """Whether a manifest lies in an RO-Crate: what that lists is what it holds, and no more."""
    folders = manifest.resolve().parents
    return any((folder / CRATE_NAME).is_file() for folder in folders)


def find(manifest_sha256: str, env: Mapping[str, str] | None = None) -> Path | None:
    """The report that this user's machine made of a manifest before; None where there is none."""
    with suppress(StoreError, OSError):
        path = cached(manifest_sha256, env)
        if path.is_file():
            return path
    return None


def cached(manifest_sha256: str, env: Mapping[str, str] | None = None) -> Path:
    """Where the report of a manifest lies in the user's cache folder.

    Raises:
        StoreError: When the user has no home folder.
    """
    variables = os.environ if env is None else env
    base = variables.get("XDG_CACHE_HOME", "")
    home = variables.get("HOME", "")
    if Path(base).is_absolute():  # the specification says to ignore any other
        folder = Path(base)
    elif home:
        folder = Path(home, ".cache")
    else:
        raise StoreError("no home folder to keep a report in")
    return folder / "auditkit" / "reports" / f"{manifest_sha256}.json"


def _anonymous(value: object) -> object:
    """A JSON value with this user's home folder as ``~`` in every text."""
    if isinstance(value, str):
        return redact_text(value)
    if isinstance(value, list):
        return [_anonymous(item) for item in value]
    if isinstance(value, dict):
        return {name: _anonymous(item) for name, item in value.items()}
    return value


def _write(report: VerificationReport, data: bytes, output: Output) -> Path | None:
    """Write a report unless an earlier one says more; where it then lies."""
    if _says_more(output.path, report):
        return None
    output.write(data)
    return output.path


def _says_more(path: Path, report: VerificationReport) -> bool:
    if _finds_something_wrong(report):
        return False
    try:
        data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a report")
        plain = canonical.loads(data, what=path.name)
        claimed = plain.get("verdict") if isinstance(plain, dict) else None
        has_failed = claimed == _FAILED and report.verdict == _NOT_REPLAYED
        if not has_failed and _strength(claimed) <= _strength(report.verdict):
            return False  # whatever else is in it, which takes longer to read
        earlier = importlib.import_module(_OF_REPORTS).report_from_json(data, what=path.name)
    except AuditError:
        return False
    if earlier.manifest_sha256 != report.manifest_sha256:
        return False
    if not has_failed:
        return True
    failed = {check.number for check in earlier.checks if check.status == "failed"}
    return _REPLAY in failed and _finds_something_wrong(earlier)


def _finds_something_wrong(report: VerificationReport) -> bool:
    return report.verdict not in get_args(Passing) and report.exit_code not in _NOTHING_SAID


def _strength(verdict: object) -> int:
    """How much a report of this verdict shows; -1 for what shows nothing."""
    ranks = get_args(Passing)
    return ranks.index(verdict) if verdict in ranks else -1
