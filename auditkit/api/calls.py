"""``auditkit.verify``, ``load_report`` and ``load_manifest``.

They give the records that the command line's ``--json`` writes, print nothing, and end in an
:class:`auditkit.AuditError` where the command line ends in one line on stderr. What a verification
finds is no error: it is in the report.
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from auditkit.api.countersigned import countersigned, countersigner, utc_now
from auditkit.api.given import authorities_of, refuse_idle, variables_of
from auditkit.api.received import manifest_file, received
from auditkit.api.report import Report, as_report
from auditkit.api.verifying import verify_as_asked
from auditkit.engines.spec import parse_engine
from auditkit.errors import UsageError
from auditkit.files import store
from auditkit.formats import canonical
from auditkit.formats.redaction import redact_path
from auditkit.formats.statements import manifest_from_statement
from auditkit.records.manifest import StudyManifest
from auditkit.records.recording import RecordingManifest
from auditkit.records.settings import Passing
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.trust import keys_that_count
from auditkit.verification.report_json import report_from_json
from auditkit.verification.request import REQUIRED, VerifyRequest

PathLike = str | Path

#: Loads the estimands, and so scipy.
_PILOT = "auditkit.verification.pilot"

#: Arguments that do nothing without a replay, by the field of the request.
_SPELT = {
    "replay": "replay='none'",
    "budget": "budget",
    "tolerance": "tolerance",
    "replay_seed": "replay_seed",
    "arguments": "arguments",
    "variables": "environment",
    "generalise_probe": "generalise_probe",
    "engine": "engine",
    "command": "command",
}


def verify(  # noqa: PLR0913 # one argument an option
    path: PathLike,
    *,
    key: PathLike | Sequence[PathLike] = (),
    fingerprint: str | Sequence[str] = (),
    replay: int | Literal["all", "none"] = "all",
    allow_code: bool = False,
    arguments: Mapping[str, str] | None = None,
    command: Sequence[str] = (),
    jobs: int = 1,
    require: Literal["verified", "sampled", "integrity", "integrity-only"] | None = None,
    strict: bool = False,
    threshold: int = 1,
    authority: PathLike | Sequence[PathLike] = (),
    environment: str | Sequence[str] = (),
    replay_seed: int | None = None,
    budget: float | None = None,
    tolerance: float | None = None,
    generalise_probe: bool = False,
    pilot: PathLike | None = None,
    countersign: PathLike | None = None,
    engine: str | None = None,
) -> Report:
    """Verify a study or recording, as ``auditkit verify`` does; the arguments are its options.

    Args:
        path: Its manifest, its folder, or a ``.zip`` or ``.tar.gz`` of it.
        key: Files of public keys to trust; without key or fingerprint this machine's own.
        fingerprint: ``SHA256:...`` of keys to trust, as the paper prints them.
        replay: ``"all"``, ``"none"``, or how many branches to draw by chance.
        allow_code: Whether code that somebody else signed may be executed.
        arguments: Arguments of the factory that say where data lie here.
        command: Of the study of a script: its command, with ``{seed}``.
        jobs: Processes that replay at a time: seeds, and where fewer are left, their branches.
        require: Let the exit code be 7, and the report false, where less than this is shown.
        strict: Whether this machine's own trust is set aside, and unlisted files are failures.
        threshold: How many people whose keys are trusted must have signed.
        authority: Certificate files of timestamp authorities to trust.
        environment: Names of this process's variables that the replay has, too.
        replay_seed: Repeats a draw of so many branches.
        budget: Seconds to spend on replay, as many branches as fit.
        tolerance: Total variation up to which another environment's tables are called close.
        generalise_probe: Whether effects are also given for other examples than the probe's.
        pilot: The study that this one was planned by: are its seeds new?
        countersign: Key file to sign the report with; a warning says why, where it is not.
        engine: ``dask``, ``ray``, or either with ``:ADDRESS``, to have it replayed there.

    Raises:
        AuditError: Where the command ends in one line; a report that is false says what is wrong.
    """
    request = VerifyRequest(
        *((), replay, replay_seed, strict, allow_code, _redacted(arguments), jobs),
        *(tuple(command), threshold, budget, tolerance, authorities_of(_several(authority))),
        fingerprints=_several(fingerprint),
        require=_required(require),
        variables=variables_of(_several(environment)),
        generalise_probe=generalise_probe,
        engine=None if engine is None else parse_engine(engine),
    )
    return _verified(Path(path), request, _several(key), pilot, countersign)


def _verified(
    path: Path,
    request: VerifyRequest,
    keys: Sequence[PathLike],
    pilot: PathLike | None,
    countersign: PathLike | None,
) -> Report:
    _check(request)
    with ExitStack() as stack:
        place = received(stack, path)
        signer = None if countersign is None else countersigner(countersign, path, place)
        trusted, aside = keys_that_count(
            place.parent, keys, request.fingerprints, strict=request.strict, warn=_warn
        )
        named = bool(keys or request.fingerprints)
        request = replace(request, trusted=trusted, set_aside=aside, named=named)
        if pilot is not None:
            seeds = importlib.import_module(_PILOT).pilot_seeds(received(stack, pilot), request)
            request = replace(request, pilot=seeds)
        started = utc_now()
        report = as_report(verify_as_asked(place, request))
        if signer is not None:
            countersigned(place, report, started, signer, _warn)
        return report


def load_report(path: PathLike) -> Report:
    """Read a report that ``auditkit verify`` left or wrote with ``--json``.

    Nobody signed it: what it says is worth as much as whoever gave it to you.

    Args:
        path: The file; usually ``report.json``.

    Raises:
        StoreError: When it cannot be read.
        JsonError: When it is no strict JSON.
        SchemaError: When it is no report, or one that contradicts itself.
    """
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a report")
    return as_report(report_from_json(data, what=Path(path).name))


def load_manifest(path: PathLike) -> StudyManifest | RecordingManifest:
    """Read what a manifest says. Nothing is verified: :func:`auditkit.verify` does that.

    Args:
        path: The manifest, or its folder.

    Raises:
        StoreError: When it cannot be read, or is not there yet.
        MalformedError: When it is no manifest.
    """
    place = manifest_file(Path(path))
    data = store.read_bytes(place, max_bytes=canonical.MAX_BYTES, what="a manifest")
    payload = open_envelope(data, what=place.name).payload
    return manifest_from_statement(payload, what=place.name)


def _check(request: VerifyRequest) -> None:
    replay, seed = request.replay, request.replay_seed
    if replay not in ("all", "none") and not _is_whole(replay, 1):
        raise UsageError(f"replay is 'all', 'none' or a whole number of at least 1, not {replay!r}")
    for name, value in (("jobs", request.jobs), ("threshold", request.threshold)):
        if not _is_whole(value, 1):
            raise UsageError(f"{name} must be at least 1, not {value!r}")
    if seed is not None and not _is_whole(seed, 0):
        raise UsageError(f"replay_seed is a whole number of at least 0, not {seed!r}")
    budget, tolerance = request.budget, request.tolerance
    if budget is not None and not (_is_number(budget) and 0 < budget < math.inf):
        raise UsageError(f"budget is a number of seconds above 0, not {budget!r}")
    if tolerance is not None and not (_is_number(tolerance) and 0 <= tolerance <= 1):
        raise UsageError(f"tolerance is a total variation, 0 to 1, not {tolerance!r}")
    refuse_idle(request, _SPELT)


def _required(verdict: str | None) -> Passing | None:
    if verdict is not None and verdict not in REQUIRED:
        raise UsageError(f"require is one of {', '.join(REQUIRED)}, not {verdict!r}")
    return None if verdict is None else REQUIRED[verdict]


def _redacted(arguments: Mapping[str, str] | None) -> dict[str, str]:
    return {name: redact_path(text) for name, text in (arguments or {}).items()}


def _is_whole(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _several(given: Any) -> list[Any]:
    """What was given alone or in a sequence."""
    return [given] if isinstance(given, (str, Path)) else list(given)


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=5)  # where auditkit.verify was called
