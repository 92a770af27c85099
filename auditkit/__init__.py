"""auditkit: Branch-and-Hold studies whose evidence a reviewer can replay.

The names below are loaded when they are first used (PEP 562), so that ``import auditkit`` and
``auditkit verify --replay none`` load no torch. What their results consist of is in
:mod:`auditkit.types`.
"""

from __future__ import annotations

import importlib

from auditkit.version import __version__

TYPE_CHECKING = False  # typing's own takes as long to import as all else that is loaded before

if TYPE_CHECKING:
    from typing import Any

    from auditkit.api.calls import load_manifest, load_report, verify
    from auditkit.api.difference import diff
    from auditkit.api.report import Report
    from auditkit.errors import AuditError, NothingToPerturb
    from auditkit.observe.rng.per_sample import PerSample
    from auditkit.observe.state.components import Stateful, TrainingObjects
    from auditkit.perturbations.base import Perturbation
    from auditkit.program.observables import Measure
    from auditkit.program.probe import Probe
    from auditkit.program.program import Program
    from auditkit.recorder.recorder import Recorder
    from auditkit.records.declaration import Declaration, Parameter
    from auditkit.records.plan import PerturbationSpec, StudyPlan

_HOMES = {
    "AuditError": "auditkit.errors",
    "Declaration": "auditkit.records.declaration",
    "Measure": "auditkit.program.observables",
    "NothingToPerturb": "auditkit.errors",
    "Parameter": "auditkit.records.declaration",
    "PerSample": "auditkit.observe.rng.per_sample",
    "Perturbation": "auditkit.perturbations.base",
    "PerturbationSpec": "auditkit.records.plan",
    "Probe": "auditkit.program.probe",
    "Program": "auditkit.program.program",
    "Recorder": "auditkit.recorder.recorder",
    "Report": "auditkit.api.report",
    "Stateful": "auditkit.observe.state.components",
    "StudyPlan": "auditkit.records.plan",
    "TrainingObjects": "auditkit.observe.state.components",
    "diff": "auditkit.api.difference",
    "load_manifest": "auditkit.api.calls",
    "load_report": "auditkit.api.calls",
    "verify": "auditkit.api.calls",
}

__all__ = [
    "AuditError",
    "Declaration",
    "Measure",
    "NothingToPerturb",
    "Parameter",
    "PerSample",
    "Perturbation",
    "PerturbationSpec",
    "Probe",
    "Program",
    "Recorder",
    "Report",
    "Stateful",
    "StudyPlan",
    "TrainingObjects",
    "__version__",
    "diff",
    "load_manifest",
    "load_report",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'auditkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
