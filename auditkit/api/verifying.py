"""Verify a manifest as it was asked for, and load what a replay needs only for one.

All that looks at files is loaded late, too: what loads this can first settle how numpy starts.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from auditkit.records.report import VerificationReport
from auditkit.verification.request import VerifyRequest

if TYPE_CHECKING:
    from auditkit.replay.request import Replayer

#: The checks.
_PROCEDURE = "auditkit.verification.procedure"

#: Loads worker processes, scipy, and, for plug-ins, torch.
_WITH_REPLAY = "auditkit.api.with_replay"


def verify_as_asked(
    path: Path, request: VerifyRequest, replayer: Replayer | None = None
) -> VerificationReport:
    """Verify with replay and estimands where they are asked for, and with plug-ins.

    Args:
        path: The manifest.
        request: How.
        replayer: Re-executes branches; by default :func:`auditkit.replay.study_replay.replay`.
    """
    report: VerificationReport
    if request.replay == "none":
        report = importlib.import_module(_PROCEDURE).verify(path, request)
    else:
        with_replay = importlib.import_module(_WITH_REPLAY)
        report = with_replay.verify_with_replay(path, request, replayer)
    return report
