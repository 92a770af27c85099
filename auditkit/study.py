"""Run a study: the five stages over every seed, then one signed manifest.

::

    for each seed, in two fresh processes one after the other:
        trunk     Snapshotter, Evaluator, Auditor     steps 1..t0..T: trunk, fork, control
        branches  Forker, Perturber, Evaluator, Auditor    replica, placebos, treatments

While this goes on every file ends in ``.partial`` and there is no manifest. A seed is complete
once its ``seed.json.partial`` lists its files; ``resume`` rechecks complete seeds by SHA-256
and runs the others from their start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from auditkit import __version__, canonical, schema, store
from auditkit.errors import ArtifactError, PlanError, StoreError
from auditkit.launch import Workers
from auditkit.manifests import PREDICATE_FIELDS, statement_bytes
from auditkit.observe.repository import git_state
from auditkit.records.job import Job, ProgramSource, Progress
from auditkit.records.manifest import (
    CODE_FOLDER,
    MANIFEST_NAME,
    SCHEMA_VERSION,
    SIGNER_NAME,
    Producer,
    RunTimes,
    StudyManifest,
)
from auditkit.records.perturbation import Declaration, declaration_of
from auditkit.records.plan import StudyPlan
from auditkit.records.study import (
    BranchesResult,
    FileRecord,
    ProgramRecord,
    SeedRecord,
    TrunkResult,
)
from auditkit.signing import sign_statement
from auditkit.trust import SigningKey
