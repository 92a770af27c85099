"""What a caller gives to verify with, beside keys: environment variables, and authorities.

The command line takes its options from here, too, so that both mean the same.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from auditkit.api.needed import timestamps, token_sha256
from auditkit.errors import UsageError
from auditkit.formats.quote import brief, escaped, printable
from auditkit.verification.authorities import Authorities
from auditkit.verification.request import VerifyRequest

#: Characters of a variable's value, as of any text of a report.
_MAX_VALUE = 65536

#: Loaded only where variables are given.
_INTERPRETER = "auditkit.processes.interpreter"


def variables_of(names: Sequence[str]) -> dict[str, str]:
    """Variables of this process's environment by name, with their values.

    Raises:
        UsageError: On one that is not set, empty, no text, given twice, or not to be chosen.
    """
    return _values_of(names) if names else {}


def _values_of(names: Sequence[str]) -> dict[str, str]:
    is_set_by_auditkit = importlib.import_module(_INTERPRETER).is_set_by_auditkit
    variables: dict[str, str] = {}
    for name in names:
        value = os.environ.get(name, "")
        if is_set_by_auditkit(name):
            raise UsageError(f"--env {brief(name)}: that is for auditkit to set in a replay")
        if not name.isidentifier() or not value:
            raise UsageError(
                f"--env {brief(name)} is no variable of this environment, or empty",
                hint="give the name alone; the value is the one that it has here",
            )
        if escaped(value) != printable(value) or len(value) > _MAX_VALUE:
            raise UsageError(f"--env {brief(name)}: its value is too long, or no UTF-8 text")
        if name in variables:
            raise UsageError(f"--env {brief(name)} is given twice")
        variables[name] = value
    return variables


def authorities_of(files: Sequence[str | Path]) -> Authorities:
    """How timestamps are judged; the package for it is only needed where there are some.

    Raises:
        UsageError: When its package is not installed.
        StoreError: When a certificate cannot be read.
    """
    if not files:
        return Authorities(token_sha256=token_sha256)
    module = timestamps()
    certificates = [found for name in files for found in module.load_certificates(str(name))]
    return Authorities(
        check=lambda reply, message: module.check_timestamp(reply, message, certificates),
        token_sha256=token_sha256,
        names=tuple(module.certificate_sha256(certificate) for certificate in certificates),
    )


def refuse_idle(request: VerifyRequest, spelt: Mapping[str, str]) -> None:
    """Refuse what would do nothing, where nothing is replayed.

    Args:
        request: How somebody wants to verify.
        spelt: What he calls ``replay="none"``, and the fields that are for a replay, by field.

    Raises:
        UsageError: When there are any.
    """
    plain = VerifyRequest(trusted=(), replay=request.replay)
    idle = [
        name for field, name in spelt.items() if getattr(request, field) != getattr(plain, field)
    ]
    if request.replay == "none" and idle:
        raise UsageError(f"{', '.join(idle)} would do nothing: {spelt['replay']} replays nothing")
    if request.command and request.variables:
        raise UsageError(
            f"{spelt['variables']} would do nothing: your own command runs in your environment"
        )
