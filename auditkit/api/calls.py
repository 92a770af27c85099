"""``auditkit.verify``, ``load_report`` and ``load_manifest``.

They give the records that the command line's ``--json`` writes, print nothing, and end in an
:class:`auditkit.AuditError` where the command line ends in one line on stderr. What a verification
finds is no error: it is in the report.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from auditkit.api import values
from auditkit.api.countersigned import countersigned, countersigner, utc_now
from auditkit.api.given import authorities_of, refuse_idle, variables_of
from auditkit.api.received import manifest_file, received
from auditkit.api.report import Report, as_report
from auditkit.api.verifying import verify_as_asked
from auditkit.engines.spec import EngineSpec, parse_engine
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

PathLike = str | os.PathLike[str]

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
    given = dict(
        locals()
    )  # every argument by its name, which is what it is called where it is wrong
    return _verified(values.path("path", path), _request(given), given)


def _request(given: Mapping[str, Any]) -> VerifyRequest:
    """How somebody wants to verify, once everything is what it can be."""
    whole, positive = values.whole, values.positive
    request = VerifyRequest(
        trusted=(),
        replay=_replay(given["replay"]),
        replay_seed=values.optional(whole, "replay_seed", given["replay_seed"], 0),
        strict=values.flag("strict", given["strict"]),
        allow_code=values.flag("allow_code", given["allow_code"]),
        arguments=_redacted(given["arguments"]),
        jobs=whole("jobs", given["jobs"], 1),
        command=values.words("command", given["command"]),
        threshold=whole("threshold", given["threshold"], 1),
        budget=values.optional(positive, "budget", given["budget"], "a number of seconds above 0"),
        tolerance=values.optional(_tolerance, "tolerance", given["tolerance"]),
        authorities=authorities_of(values.paths("authority", given["authority"])),
        fingerprints=values.texts("fingerprint", given["fingerprint"]),
        require=_required(given["require"]),
        variables=variables_of(values.texts("environment", given["environment"])),
        generalise_probe=values.flag("generalise_probe", given["generalise_probe"]),
        engine=values.optional(_engine, "engine", given["engine"]),
    )
    refuse_idle(request, _SPELT)
    return request


def _verified(path: Path, request: VerifyRequest, given: Mapping[str, Any]) -> Report:
    keys = values.paths("key", given["key"])
    pilot, countersign = (
        values.optional(values.path, name, given[name]) for name in ("pilot", "countersign")
    )
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
    place = values.path("path", path)
    data = store.read_bytes(place, max_bytes=canonical.MAX_BYTES, what="a report")
    return as_report(report_from_json(data, what=place.name))


def load_manifest(path: PathLike) -> StudyManifest | RecordingManifest:
    """Read what a manifest says. Nothing is verified: :func:`auditkit.verify` does that.

    Args:
        path: The manifest, or its folder.

    Raises:
        StoreError: When it cannot be read, or is not there yet.
        MalformedError: When it is no manifest.
    """
    place = manifest_file(values.path("path", path))
    data = store.read_bytes(place, max_bytes=canonical.MAX_BYTES, what="a manifest")
    payload = open_envelope(data, what=place.name).payload
    return manifest_from_statement(payload, what=place.name)


def _replay(amount: object) -> int | Literal["all", "none"]:
    if isinstance(amount, str) and amount in ("all", "none"):
        return cast("Literal['all', 'none']", amount)
    try:
        return values.whole("replay", amount, 1)
    except UsageError:
        expected = "'all', 'none' or a whole number of at least 1"
        raise values.refused("replay", expected, amount) from None


def _engine(name: str, given: object) -> EngineSpec:
    return parse_engine(values.text(name, given))


def _tolerance(name: str, given: object) -> float:
    expected = "a total variation, 0 to 1"
    return values.number(name, given, expected, lambda found: 0 <= found <= 1)


def _required(verdict: object) -> Passing | None:
    if verdict is None:
        return None
    if not isinstance(verdict, str) or verdict not in REQUIRED:
        raise values.refused("require", f"one of {', '.join(REQUIRED)}", verdict)
    return REQUIRED[verdict]


def _redacted(arguments: object) -> dict[str, str]:
    given = values.texts_by_name("arguments", arguments)
    return {name: redact_path(text) for name, text in given.items()}


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=5)  # where auditkit.verify was called
