"""Options of the commands that verify, and the request that they make."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from auditkit.api.given import authorities_of, variables_of
from auditkit.api.given import refuse_idle as refuse_idle_by
from auditkit.cli.engine_options import engine_option
from auditkit.cli.options import TEXT, WHOLE, parse_arguments, whole_number
from auditkit.cli.saying import say
from auditkit.engines.spec import EngineSpec
from auditkit.errors import UsageError
from auditkit.formats.quote import brief
from auditkit.signing.keys import TrustedKey
from auditkit.signing.trust import keys_that_count
from auditkit.verification.request import REQUIRED, VerifyRequest

_SHARED_OPTIONS = (
    click.option(
        "--key",
        "keys",
        multiple=True,
        type=TEXT,
        help="Public key file to trust (the --key of run, plan and sign is a private one); "
        "repeatable.",
    ),
    click.option(
        "--fingerprint", multiple=True, type=TEXT, help="SHA256:... from the paper; repeatable."
    ),
    click.option("--allow-code", is_flag=True, help="Execute code signed by somebody else's key."),
    click.option(
        "--arg", "arguments", multiple=True, type=TEXT, help="Where data lie here; repeatable."
    ),
    click.option("--jobs", type=WHOLE, help="Processes at a time: seeds, then branches."),
    engine_option,
    click.option("--strict", is_flag=True, help="No machine trust; unlisted files are failures."),
    click.option(
        "--threshold",
        type=WHOLE,
        default=1,
        help="How many people you trust must have signed; keys that share a principal are one's.",
    ),
    click.option(
        "--authority",
        "authorities",
        multiple=True,
        type=TEXT,
        help="Certificate file of a timestamp authority to trust; repeatable.",
    ),
)

#: How options are typed that do nothing without a replay, by the field of the request.
OPTIONS = {
    "replay": "--replay none",
    "budget": "--budget",
    "tolerance": "--tolerance",
    "replay_seed": "--replay-seed",
    "arguments": "--arg",
    "variables": "--env",
    "generalise_probe": "--generalise-probe",
    "engine": "--engine",
    "command": "a command after --",
}

#: For commands that replay in an interpreter that is kept apart. A reproduction, or a command of
#: the user's own, runs in his whole environment.
let_through_option = click.option(
    "--env",
    "variables",
    multiple=True,
    type=TEXT,
    help="Name of an environment variable that the replay has, too; repeatable.",
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
        type=TEXT,
        help="all, none, or how many branches to draw.",
    )

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed((*_SHARED_OPTIONS[:2], amount, *_SHARED_OPTIONS[2:])):
            command = option(command)
        return command

    return add


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
    threshold: int,
    authorities: tuple[str, ...],
    replay_seed: int | None = None,
    variables: tuple[str, ...] = (),
    require: str | None = None,
    generalise_probe: bool = False,
    engine: EngineSpec | None = None,
) -> VerifyRequest:
    """What the options of :func:`verification_options` and :data:`let_through_option` ask for.

    Raises:
        UsageError: On a value that means nothing.
    """
    n_replay = _amount(amount)
    if threshold < 1:
        raise UsageError(f"--threshold must be at least 1, not {threshold}")
    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be at least 1, not {jobs}")
    if engine is not None:
        engine.require_installed()
    named = bool(keys or fingerprint)
    trusted, aside = keys_that_count(path.parent, keys, fingerprint, strict=strict, warn=_warn)
    return VerifyRequest(
        trusted=trusted,
        replay=n_replay,
        replay_seed=replay_seed,
        strict=strict,
        allow_code=allow_code,
        arguments=parse_arguments(arguments),
        jobs=jobs if jobs is not None else 0,
        threshold=threshold,
        authorities=authorities_of(authorities),
        named=named,
        fingerprints=fingerprint,
        variables=variables_of(variables),
        set_aside=aside,
        require=None if require is None else REQUIRED[require],
        generalise_probe=generalise_probe,
        engine=engine,
    )


def refuse_idle(request: VerifyRequest) -> None:
    """Refuse options that would do nothing, where nothing is replayed.

    Raises:
        UsageError: When there are any.
    """
    refuse_idle_by(request, OPTIONS)


def trusted_keys(
    path: Path, keys: tuple[str, ...], fingerprints: tuple[str, ...], *, strict: bool
) -> list[TrustedKey]:
    """The keys that count: see :func:`auditkit.signing.trust.keys_that_count`."""
    return keys_that_count(path.parent, keys, fingerprints, strict=strict, warn=_warn)[0]


def _warn(line: str) -> None:
    say(f"warning: {line}")


def _amount(text: str) -> str | int:
    if text in ("all", "none"):
        return text
    number = whole_number(text)
    if number is not None and number > 0:
        return number
    raise UsageError(f"--replay {brief(text)} is not all, none or a whole number of at least 1")
