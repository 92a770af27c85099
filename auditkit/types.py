"""The classes that reports, manifests and differences consist of, to name in annotations.

``auditkit.verify`` and ``auditkit.load_report`` give a :class:`Report`, ``auditkit.load_manifest``
gives a :class:`StudyManifest` or a :class:`RecordingManifest`, ``auditkit.diff`` gives a
:class:`RunDifference`, ``auditkit.power`` a :class:`PowerReport`; the other classes are what stands
in these. All are frozen dataclasses that hold what the JSON holds. Later versions add fields;
within version 1 of the schemas none is renamed or taken away.
"""

from __future__ import annotations

from auditkit.api.report import (
    Report,
)
from auditkit.diagnose.details import (
    SampleDifference,
)
from auditkit.diagnose.run_difference import (
    FieldDifference,
    OutcomeDifference,
    RunDifference,
    SnapshotDistance,
    TraceDifference,
)
from auditkit.evidence.distances import (
    Magnitude,
)
from auditkit.evidence.settings import (
    SettingDifference,
)
from auditkit.records.back_flow import Alignment, BackFlow
from auditkit.records.causal_break import BreakRecord
from auditkit.records.environment import (
    Environment,
)
from auditkit.records.estimate import (
    ControlLevel,
    DistanceEstimate,
    EstimateTable,
    FloorDevelopment,
    Interval,
    Persistence,
    SignedEstimate,
)
from auditkit.records.further_estimates import Generalised, ProfileRow, Spread
from auditkit.records.manifest import (
    BranchRecord,
    CodeFile,
    DataRecord,
    Extension,
    FileRecord,
    FurtherFork,
    Producer,
    ProgramRecord,
    RunTimes,
    SeedRecord,
    StudyManifest,
)
from auditkit.records.observed import MeasureRecord, Observed
from auditkit.records.opened import (
    OpenedFile,
    OpenedFiles,
)
from auditkit.records.own_perturbation import (
    OwnPerturbation,
)
from auditkit.records.parameter import (
    Parameter,
)
from auditkit.records.plan import (
    PerturbationSpec,
    StudyPlan,
)
from auditkit.records.plug_in import (
    PlugIn,
)
from auditkit.records.power import NoSpread, PowerPoint, PowerReport, PowerRow, SeedCost
from auditkit.records.recording import (
    CheckpointRecord,
    RankRecord,
    RecordingManifest,
    WorldRecord,
)
from auditkit.records.report import (
    CheckResult,
    Countersignature,
    Distance,
    Finding,
    Need,
    OpenedReport,
    PlanBinding,
    StatedReplay,
    Timestamp,
)
from auditkit.records.rng import (
    RngContract,
    StreamContract,
)
from auditkit.records.settings import (
    ArgumentSetting,
    VariableSetting,
    VerifierSettings,
)
from auditkit.records.sharding import ShardedState

__all__ = [
    "Alignment",
    "ArgumentSetting",
    "BackFlow",
    "BranchRecord",
    "BreakRecord",
    "CheckResult",
    "CheckpointRecord",
    "CodeFile",
    "ControlLevel",
    "Countersignature",
    "DataRecord",
    "Distance",
    "DistanceEstimate",
    "Environment",
    "EstimateTable",
    "Extension",
    "FieldDifference",
    "FileRecord",
    "Finding",
    "FloorDevelopment",
    "FurtherFork",
    "Generalised",
    "Interval",
    "Magnitude",
    "MeasureRecord",
    "Need",
    "NoSpread",
    "Observed",
    "OpenedFile",
    "OpenedFiles",
    "OpenedReport",
    "OutcomeDifference",
    "OwnPerturbation",
    "Parameter",
    "Persistence",
    "PerturbationSpec",
    "PlanBinding",
    "PlugIn",
    "PowerPoint",
    "PowerReport",
    "PowerRow",
    "Producer",
    "ProfileRow",
    "ProgramRecord",
    "RankRecord",
    "RecordingManifest",
    "Report",
    "RngContract",
    "RunDifference",
    "RunTimes",
    "SampleDifference",
    "SeedCost",
    "SeedRecord",
    "SettingDifference",
    "ShardedState",
    "SignedEstimate",
    "SnapshotDistance",
    "Spread",
    "StatedReplay",
    "StreamContract",
    "StudyManifest",
    "StudyPlan",
    "Timestamp",
    "TraceDifference",
    "VariableSetting",
    "VerifierSettings",
    "WorldRecord",
]
