"""Perturbations of an earlier version: the same name, and another change.

A record keeps the version that it was made with, and is judged by it. Readers know the name and
take it for today's, so the report says where it is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from auditkit.errors import UnknownPerturbation
from auditkit.formats.quote import clipped
from auditkit.records.declaration import Declaration
from auditkit.records.manifest import StudyManifest
from auditkit.records.perturbation_spec import PerturbationSpec
from auditkit.verification.several_forks import all_seeds


def earlier_versions_note(
    manifest: StudyManifest, declarations: Mapping[str, Declaration]
) -> str | None:
    """Which perturbations are of an earlier version, and what that changes; None without any.

    Args:
        manifest: The study.
        declarations: The verifier's own table, with what the plan declares.
    """
    found: dict[str, None] = {}
    for spec, version in _made(manifest):
        current = declarations.get(spec.name)
        if current is None or version in (None, current.version):
            continue  # check 4 names what is not known
        try:
            changes = clipped(current.of_version(version).summary)
        except UnknownPerturbation:
            continue
        of = f"{spec.name} is version {version} here, and {current.version} in this auditkit"
        found[f"{of}; version {version}: {changes}"] = None
    return "; ".join(found) or None


def _made(manifest: StudyManifest) -> Iterator[tuple[PerturbationSpec, int | None]]:
    """Every perturbation of a branch, and every causal break, with its version."""
    for record in all_seeds(manifest):
        for branch in record.branches:
            if branch.perturbation is not None:
                yield branch.perturbation, branch.version
            if branch.broken is not None and manifest.plan.causal_break is not None:
                yield manifest.plan.causal_break, branch.broken.version
