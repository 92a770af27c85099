"""What a verifier brings to judge a study's plan by: authorities, and a way to rebuild programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from auditkit.records.registration import RegisterResult, Registration
from auditkit.records.report import Timestamp

if TYPE_CHECKING:
    from auditkit.evidence.reader import RunEvidence
    from auditkit.study.planning import TokenDigest

#: Verifies a timestamp over bytes under the authorities that the verifier trusts.
StampCheck = Callable[[bytes, bytes], Timestamp]

#: Builds the recorded program with a seed, in a process of its own, and looks at it.
Registrar: TypeAlias = "Callable[[RunEvidence, Registration, int], RegisterResult]"


@dataclass(frozen=True)
class Authorities:
    """How timestamps are judged.

    Attributes:
        check: See :data:`StampCheck`; None where the verifier named no authority.
        token_sha256: See :data:`auditkit.study.planning.TokenDigest`; None without the package.
        names: SHA-256 of the certificates that the verifier named.
    """

    check: StampCheck | None = None
    token_sha256: TokenDigest | None = None
    names: tuple[str, ...] = ()
