"""Seeds that are added to a finished study, whose results whoever adds them could know.

The study stays what it is until the new one is published over it: its manifest is kept beside the
new one, which names it and its seeds, so that a report can say that there was a look in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from auditkit.errors import PlanError
from auditkit.files.extended import require_listed, require_name
from auditkit.files.run_folder import RunFolder
from auditkit.formats.statements import study_from_statement
from auditkit.records.fork_points import require_one_fork
from auditkit.records.manifest import Extension, StudyManifest
from auditkit.records.plan import StudyPlan
from auditkit.records.preflight import Preflight
from auditkit.records.registration import PLAN_ROLE
from auditkit.signing.envelopes import open_envelope
from auditkit.signing.keys import TrustedKey
from auditkit.signing.signatures import check_signatures


@dataclass(frozen=True)
class EarlierStudy:
    """A finished study that seeds are added to.

    Attributes:
        manifest: Its manifest.
        data: The manifest file's bytes.
    """

    manifest: StudyManifest
    data: bytes

    @property
    def name(self) -> str:
        """The file in which its manifest is kept."""
        return f"manifest-{len(self.manifest.extends) + 1}.json"

    @property
    def extends(self) -> tuple[Extension, ...]:
        """What the new manifest says of it, and of those that it extends itself."""
        extends, plan = self.manifest.extends, self.manifest.plan
        return (*extends, Extension(self.name, plan.seeds, self.manifest.run.finished))

    def extended(self, seeds: Sequence[int]) -> StudyPlan:
        """Its plan with further seeds.

        Raises:
            PlanError: When it has one of them already.
        """
        plan = self.manifest.plan
        require_one_fork(plan, "a study that seeds are added to")
        known = sorted(set(seeds) & set(plan.seeds))
        if known:
            raise PlanError(f"the study has seed {known[0]} already", hint="give other seeds")
        return plan.changed(seeds=(*plan.seeds, *seeds))

    def require_same_program(self, found: Preflight) -> None:
        """Require a program, data and environment that are those of the study.

        Args:
            found: What was found out about the program as it is now.

        Raises:
            PlanError: Naming the file, or what else is another one.
        """
        recorded = {file.name: file.sha256 for file in self.manifest.program.code}
        lines = [
            f"{file.name} is another file than in the study"
            for file in found.code
            if recorded.get(file.name, file.sha256) != file.sha256
        ]
        opened = {} if self.manifest.opened is None else self.manifest.opened.hashed
        data = {} if found.opened is None else found.opened.hashed
        lines += [
            f"{name} is another file than in the study"
            for name in sorted(opened.keys() & data)
            if opened[name] != data[name]
        ]
        before, now = (
            replace(side, packages={}) for side in (self.manifest.environment, found.environment)
        )
        lines += [f"the environment is not the study's: {line}" for line in before.differences(now)]
        if lines:
            raise PlanError(
                f"seeds cannot be added: {lines[0]}",
                hint="all seeds of a study are of one program; run a new study in another --out",
            )


def read_earlier(folder: RunFolder, key: TrustedKey, *, resume: bool) -> EarlierStudy:
    """Open the finished study in a folder, to add seeds to it.

    Args:
        folder: Its folder.
        key: The key that the new manifest will be signed with.
        resume: Whether adding them was begun already.

    Raises:
        StoreError: When there is none, or one of its files is not what it lists, or the name
            under which its manifest is to be kept is taken.
        MalformedError: When its manifest is none.
        NotTrusted: When it is signed by another key.
        PlanError: When it is bound to a plan, which names its seeds.
    """
    data = folder.finished_manifest(resume=resume)
    envelope = open_envelope(data, what="manifest.json")
    check_signatures(envelope, [key])
    manifest = study_from_statement(envelope.payload, what="manifest.json")
    if any(file.role == PLAN_ROLE for file in manifest.files):
        raise PlanError(
            "the study is bound to a signed plan, which names its seeds",
            hint="make a new plan with all of them",
        )
    earlier = EarlierStudy(manifest, data)
    require_listed(folder.path, manifest.files)
    require_name(folder.path, earlier.name, data)
    return earlier
