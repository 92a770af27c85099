"""How somebody wants a manifest verified, and what of that the report says he set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from auditkit.engines.spec import EngineSpec
from auditkit.formats.redaction import redact_path, redact_text
from auditkit.formats.statements import Manifest
from auditkit.records.settings import ArgumentSetting, Passing, VariableSetting, VerifierSettings
from auditkit.signing.keys import TrustedKey
from auditkit.signing.trust import BY_FINGERPRINT
from auditkit.verification.authorities import Authorities

if TYPE_CHECKING:
    from auditkit.verification.pilot_seeds import PilotSeeds

#: What ``require`` takes, and the verdict that it asks for; that may be typed as it is printed.
REQUIRED: Mapping[str, Passing] = {
    "verified": "verified",
    "sampled": "sampled",
    "integrity": "integrity-only",
    "integrity-only": "integrity-only",
}


@dataclass(frozen=True)
class VerifyRequest:
    """How to verify.

    Attributes:
        trusted: Keys that count.
        replay: ``all``, ``none``, or how many branches to draw.
        replay_seed: Repeats a draw; then no odds are stated, since the author may know it.
        strict: Whether unlisted files are failures.
        allow_code: Whether code signed by somebody else's key may be executed.
        arguments: Arguments of the factory that replace recorded ones.
        jobs: Processes that replay at a time; None for as many as cores allow.
        command: The verifier's own command for the study of a script.
        threshold: How many people whose keys are trusted must have signed.
        budget: Seconds to spend on replay, as many branches as fit; None for no limit.
        tolerance: See :class:`auditkit.replay.request.ReplayRequest`.
        authorities: How timestamps are judged.
        named: Whether the trusted keys were named for this verification, and are not those that
            this machine trusts anyway.
        fingerprints: Fingerprints that were given, also those of which no key is there.
        set_aside: Keys that this machine trusts, where naming others replaced them.
        require: The least verdict that satisfies; None for any that finds nothing wrong.
        variables: Environment variables that a replay has beside those that any has, by name.
        generalise_probe: Whether effects are also given for other examples than the probe's.
        pilot: The study that this one was planned by; None where none was named.
        engine: See :class:`auditkit.replay.request.ReplayRequest`.
    """

    trusted: Sequence[TrustedKey]
    replay: str | int = "all"
    replay_seed: int | None = None
    strict: bool = False
    allow_code: bool = False
    arguments: Mapping[str, str] = field(default_factory=dict)
    jobs: int = 1
    command: tuple[str, ...] = ()
    threshold: int = 1
    budget: float | None = None
    tolerance: float | None = None
    authorities: Authorities = field(default_factory=Authorities)
    named: bool = True
    fingerprints: Sequence[str] = ()
    set_aside: Sequence[TrustedKey] = ()
    require: Passing | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    generalise_probe: bool = False
    pilot: PilotSeeds | None = None
    engine: EngineSpec | None = None


def settings_of(request: VerifyRequest, manifest: Manifest | None) -> VerifierSettings:
    """What a verifier set, beside what the record says of it."""
    recorded = {} if manifest is None else manifest.program.arguments
    named = request.trusted if request.named else ()
    known = [key.fingerprint for key in named if key.source == BY_FINGERPRINT]
    return VerifierSettings(
        replay=str(request.replay),
        replay_seed=request.replay_seed,
        budget=request.budget,
        tolerance=request.tolerance,
        arguments=tuple(
            ArgumentSetting(name, redact_path(value), recorded.get(name))
            for name, value in sorted(request.arguments.items())
        ),
        command=tuple(map(redact_text, request.command)),
        jobs=request.jobs or None,
        allow_code=request.allow_code,
        strict=request.strict,
        threshold=request.threshold,
        keys=tuple(dict.fromkeys((*(key.fingerprint for key in named), *request.fingerprints))),
        authorities=request.authorities.names,
        fingerprints=tuple(dict.fromkeys((*known, *request.fingerprints))),
        require=request.require,
        variables=tuple(
            VariableSetting(name, redact_text(value))
            for name, value in sorted(request.variables.items())
        ),
        generalise_probe=request.generalise_probe,
        pilot=None if request.pilot is None else request.pilot.statement_sha256,
        engine=None if request.engine is None else request.engine.name,
    )
