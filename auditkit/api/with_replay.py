"""Verify a manifest with a replay and estimands: what :mod:`auditkit.api.verifying` loads late."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
from dataclasses import replace
from pathlib import Path
from typing import Any

from auditkit.evidence.reader import RunEvidence
from auditkit.records.declaration import PLUGINS
from auditkit.records.report import VerificationReport
from auditkit.replay import study_replay
from auditkit.replay.request import Replayer, ReplayOutcome, ReplayRequest
from auditkit.statistics.estimands import estimate
from auditkit.verification import procedure
from auditkit.verification.rebuilding import rebuild_program
from auditkit.verification.request import VerifyRequest

#: Loaded only where plug-ins are installed: it needs torch.
_REGISTRY = "auditkit.perturbations.registry"


def verify_with_replay(
    path: Path, request: VerifyRequest, replayer: Replayer | None = None
) -> VerificationReport:
    """Verify with whatever takes code or scipy; see :func:`auditkit.api.verifying.verify_as_asked`.

    Args:
        path: The manifest.
        request: How.
        replayer: Re-executes branches.
    """
    registrar = functools.partial(
        rebuild_program, arguments=request.arguments, variables=request.variables
    )
    estimator = functools.partial(estimate, generalise_probe=request.generalise_probe)
    more: dict[str, Any] = {}
    if importlib.metadata.entry_points(group=PLUGINS):
        registry = importlib.import_module(_REGISTRY)
        known = registry.registry()
        more["declarations"] = {name: one.declaration for name, one in known.items()}
        more["plug_ins"] = {one.name: one for one in registry.installed_plug_ins()}
    return procedure.verify(
        path, request, replayer or _replay, estimator, registrar=registrar, **more
    )


def _replay(run: RunEvidence, request: ReplayRequest) -> ReplayOutcome:
    jobs = max(request.jobs, 1)
    return study_replay.replay(run, replace(request, jobs=jobs), lambda _: None)
