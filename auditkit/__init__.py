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

    from auditkit import extras as extras
    from auditkit.api.calls import load_manifest, load_report, verify
    from auditkit.api.difference import diff
    from auditkit.api.report import Report
    from auditkit.api.seeds_needed import power
    from auditkit.cli.calls import command
    from auditkit.errors import AuditError, NothingToPerturb
    from auditkit.observe.loader.consumption import consume
    from auditkit.observe.rng.per_sample import PerSample
    from auditkit.observe.state.components import Stateful, TrainingObjects
    from auditkit.perturbations.base import Material, Perturbation
    from auditkit.perturbations.own import perturb
    from auditkit.program.observables import Measure
    from auditkit.program.probe import Probe
    from auditkit.program.program import Program
    from auditkit.program.segments import Segments
    from auditkit.recorder.recorder import Recorder
    from auditkit.records.declaration import Declaration
    from auditkit.records.parameter import Parameter
    from auditkit.records.perturbation_spec import PerturbationSpec
    from auditkit.records.plan import StudyPlan
    from auditkit.records.segments import SegmentPlan

_HOMES = {
    "AuditError": "auditkit.errors",
    "Declaration": "auditkit.records.declaration",
    "Material": "auditkit.perturbations.base",
    "Measure": "auditkit.program.observables",
    "NothingToPerturb": "auditkit.errors",
    "Parameter": "auditkit.records.parameter",
    "PerSample": "auditkit.observe.rng.per_sample",
    "Perturbation": "auditkit.perturbations.base",
    "PerturbationSpec": "auditkit.records.perturbation_spec",
    "Probe": "auditkit.program.probe",
    "Program": "auditkit.program.program",
    "Recorder": "auditkit.recorder.recorder",
    "Report": "auditkit.api.report",
    "SegmentPlan": "auditkit.records.segments",
    "Segments": "auditkit.program.segments",
    "Stateful": "auditkit.observe.state.components",
    "StudyPlan": "auditkit.records.plan",
    "TrainingObjects": "auditkit.observe.state.components",
    "command": "auditkit.cli.calls",
    "consume": "auditkit.observe.loader.consumption",
    "diff": "auditkit.api.difference",
    "load_manifest": "auditkit.api.calls",
    "load_report": "auditkit.api.calls",
    "perturb": "auditkit.perturbations.own",
    "power": "auditkit.api.seeds_needed",
    "verify": "auditkit.api.calls",
}

#: Modules that are used by their name, as ``auditkit.extras.Gymnasium``.
_MODULES = {"extras": "auditkit.extras"}

__all__ = [
    "AuditError",
    "Declaration",
    "Material",
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
    "SegmentPlan",
    "Segments",
    "Stateful",
    "StudyPlan",
    "TrainingObjects",
    "__version__",
    "command",
    "consume",
    "diff",
    "load_manifest",
    "load_report",
    "perturb",
    "power",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name not in _HOMES:
        raise AttributeError(f"module 'auditkit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
