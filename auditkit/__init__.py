"""auditkit: Branch-and-Hold studies whose evidence a reviewer can replay.

The names below are loaded when they are first used (PEP 562), so that ``import auditkit`` and
``auditkit verify --replay none`` load no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auditkit.errors import AuditError
    from auditkit.perturb.base import Perturbation
    from auditkit.program import Probe, Program
    from auditkit.recorder import Recorder
    from auditkit.records.perturbation import Declaration, Parameter
    from auditkit.records.plan import PerturbationSpec, StudyPlan

__version__ = "0.1.0"

_HOMES = {
    "AuditError": "auditkit.errors",
    "Declaration": "auditkit.records.perturbation",
    "Parameter": "auditkit.records.perturbation",
    "Perturbation": "auditkit.perturb.base",
    "PerturbationSpec": "auditkit.records.plan",
    "Probe": "auditkit.observe.probe",
    "Program": "auditkit.program",
    "Recorder": "auditkit.recorder",
    "StudyPlan": "auditkit.records.plan",
}

__all__ = [
    "AuditError",
    "Declaration",
    "Parameter",
    "Perturbation",
    "PerturbationSpec",
    "Probe",
    "Program",
    "Recorder",
    "StudyPlan",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'auditkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
