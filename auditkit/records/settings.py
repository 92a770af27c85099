"""What a verifier set: part of every report, since a verdict is one under these settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from auditkit.records.plan import LEFT_OUT_IF_DEFAULT

#: Verdicts that find nothing wrong, the weakest first.
Passing = Literal["integrity-only", "sampled", "verified"]


@dataclass(frozen=True)
class ArgumentSetting:
    """An argument of the factory that the verifier gave.

    Attributes:
        name: Its name.
        value: What the verifier gave; below his home folder as ``~/...``.
        recorded: What the record says; None where it has no such argument.
    """

    name: str
    value: str
    recorded: str | None

    def __str__(self) -> str:
        text = f"--arg {self.name}={self.value}"
        if self.recorded is None:
            return f"{text} (not in the record)"
        return f"{text} ({'as' if self.value == self.recorded else f'{self.recorded} is'} recorded)"


@dataclass(frozen=True)
class VariableSetting:
    """An environment variable of the verifier's that he let through to the replay.

    Attributes:
        name: Its name.
        value: Its value; what lies below his home folder as ``~/...``.
    """

    name: str
    value: str

    def __str__(self) -> str:
        return f"--env {self.name}={self.value}"


@dataclass(frozen=True)
class VerifierSettings:
    """Whatever of a verification the verifier could have chosen otherwise.

    Attributes:
        replay: ``all``, ``none``, or how many branches were to be drawn.
        replay_seed: What repeats the draw; None where chance drew.
        budget: Seconds to spend on replay; None for no limit.
        tolerance: Largest total variation that is called close; None for equal bits only.
        arguments: Arguments of the factory, those that equal the record included.
        command: The verifier's own command for the study of a script, home folders as ``~``.
        jobs: Processes at work at a time, of seeds or of branches; None for as many as cores allow.
        allow_code: Whether code signed by somebody else's key might be executed.
        strict: Whether unlisted files were failures and this machine's trust was set aside.
        threshold: How many people had to have signed.
        keys: Fingerprints of the keys that were named; without any, those count that the
            verifier's machine trusts.
        authorities: Timestamp authorities that were named: the certificates' SHA-256.
        variables: Environment variables that the replay had beside those that any has.
        fingerprints: Those of the keys that were named by their fingerprint.
        require: The least verdict that was asked for; None for any that finds nothing wrong.
        generalise_probe: Whether effects were also asked for of other examples than the probe's.
        pilot: SHA-256 of the statement of the study that this one was planned by; None where none
            was named.
        engine: What the replay was shipped to, ``dask`` or ``ray``, without its address; None for
            this machine.
    """

    replay: str
    replay_seed: int | None = None
    budget: float | None = None
    tolerance: float | None = None
    arguments: tuple[ArgumentSetting, ...] = field(default=())
    command: tuple[str, ...] = field(default=())
    jobs: int | None = None
    allow_code: bool = False
    strict: bool = False
    threshold: int = 1
    keys: tuple[str, ...] = field(default=())
    authorities: tuple[str, ...] = field(default=())
    variables: tuple[VariableSetting, ...] = field(default=())
    fingerprints: tuple[str, ...] = field(default=())
    require: Passing | None = None
    generalise_probe: bool = field(default=False, metadata=LEFT_OUT_IF_DEFAULT)
    pilot: str | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)
    engine: str | None = field(default=None, metadata=LEFT_OUT_IF_DEFAULT)

    @property
    def given(self) -> tuple[str, ...]:
        """What the verifier gave to the program: arguments, then variables."""
        return (*map(str, self.arguments), *map(str, self.variables))

    @property
    def options(self) -> tuple[str, ...]:
        """As one would type them again: everything that is not the default of ``verify``."""
        numbers = {
            "--replay-seed": self.replay_seed,
            "--budget": None if self.budget is None else f"{self.budget:g}s",
            "--tolerance": self.tolerance,
            "--jobs": self.jobs,
            "--threshold": None if self.threshold == 1 else self.threshold,
            "--require": self.require and self.require.removesuffix("-only"),
            "--pilot": self.pilot,
            "--engine": self.engine,
        }
        flags = {
            "--allow-code": self.allow_code,
            "--strict": self.strict,
            "--generalise-probe": self.generalise_probe,
        }
        return (
            *(() if self.replay == "all" else (f"--replay {self.replay}",)),
            *(f"{name} {value}" for name, value in numbers.items() if value is not None),
            *self.given,
            *(name for name, is_set in flags.items() if is_set),
            *(f"{'--fingerprint' if k in self.fingerprints else '--key'} {k}" for k in self.keys),
            *(f"--authority {digest}" for digest in self.authorities),
            *((f"-- {' '.join(self.command)}",) if self.command else ()),
        )
