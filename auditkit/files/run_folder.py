"""The folder of a run: which files are complete, and the step from partial to published.

Rules that it keeps: a file under its final name is whole; the manifest is written last; a
journal says which plan and program the partial files belong to, so that ``resume`` cannot mix
two studies.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from auditkit.errors import ArtifactError, AuditError, PlanError, StoreError, UnsafePath
from auditkit.files import artifacts, locks, store
from auditkit.formats import canonical
from auditkit.records.environment import Environment
from auditkit.records.job import ProgramSource
from auditkit.records.manifest import CODE_FOLDER, MANIFEST_NAME, CodeFile, FileRecord
from auditkit.records.plan import StudyPlan
from auditkit.records.results import BranchesResult, TrunkResult

_JOURNAL = f"run.json{store.PARTIAL}"
_LOCK = f"run.lock{store.PARTIAL}"
_SEED_JOURNAL = f"seed.json{store.PARTIAL}"


@dataclass(frozen=True)
class Journal:
    """What an unfinished run is.

    Attributes:
        plan: Its plan.
        target: Factory, as :class:`ProgramSource` names it.
        arguments: Extra arguments of the factory.
        started: When it was first started.
        plan_sha256: SHA-256 of the signed plan that it is bound to, or None.
    """

    plan: StudyPlan
    target: str
    arguments: dict[str, str]
    started: str
    plan_sha256: str | None = None


@dataclass(frozen=True)
class FinishedSeed:
    """A seed whose files are complete.

    Attributes:
        seed: The seed.
        trunk: What the trunk worker answered.
        branches: What the branches worker answered.
        files: Its files under their final names.
    """

    seed: int
    trunk: TrunkResult
    branches: BranchesResult
    files: tuple[FileRecord, ...]


class RunFolder:
    """A run's folder.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def seed_name(seed: int) -> str:
        """Name of a seed's folder."""
        return f"seed-{seed:04d}"

    def seed_folder(self, seed: int) -> Path:
        """A seed's folder."""
        return self.path / self.seed_name(seed)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing into the folder.

        Raises:
            StoreError: When one does, or the folder cannot be made.
        """
        store.make_folder(self.path)
        with locks.lock(self.path / _LOCK):
            yield

    def begin(
        self,
        plan: StudyPlan,
        program: ProgramSource,
        now: str,
        *,
        resume: bool,
        plan_sha256: str | None = None,
    ) -> str:
        """Claim the folder for a run; an earlier one without a complete seed is started anew.

        Returns:
            When the run was first started.

        Raises:
            StoreError: When the folder holds another run, or something else.
        UnsafePath: When it holds a link, behind which nothing is the run's.
        """
        store.make_folder(self.path)
        self._refuse_links()
        if (self.path / MANIFEST_NAME).exists():
            if (self.path / _JOURNAL).exists():  # killed after its manifest was written
                self._clean_up()
            raise StoreError(
                "the folder holds a finished run", where=str(self.path), hint="give another --out"
            )
        journal = Journal(plan, program.target, dict(program.arguments), now, plan_sha256)
        path = self.path / _JOURNAL
        if not path.exists():
            self._refuse_other_files()
        elif any(self.path.glob(f"*/{_SEED_JOURNAL}")):
            if resume:
                return self._check_same_run(path, journal)
            raise StoreError(
                "the folder holds an unfinished run",
                where=str(self.path),
                hint="go on with --resume, or give another --out",
            )
        store.write_bytes(path, canonical.encode(journal))
        return now

    def finished_seed(self, seed: int) -> FinishedSeed | None:
        """A seed that an interrupted run completed, rechecked by SHA-256; None otherwise."""
        path = self.seed_folder(seed) / _SEED_JOURNAL
        if not path.exists():
            return None
        try:
            text, _, sha256 = store.read_bytes(path).rpartition(b"\n")
            if hashlib.sha256(text).hexdigest().encode() != sha256:
                return None
            done = canonical.decode(FinishedSeed, text, what=path.name)
            for file in done.files:
                name = self._present(file.name)
                if artifacts.file_sha256(self.path, name, expected_size=file.size) != file.sha256:
                    return None
            if not self._same_code((*done.trunk.code, *done.branches.code)):
                return None
        except AuditError:
            return None  # whatever is wrong with it, it is run again
        return done

    def finish_seed(self, seed: int, trunk: TrunkResult, branches: BranchesResult) -> FinishedSeed:
        """Note that a seed is complete.

        Raises:
            StoreError: When its files cannot be read or the note not be written.
        """
        folder = self.seed_name(seed)
        roles = {f"{folder}/fork.safetensors": "fork", f"{folder}/order.safetensors": "order"}
        roles[f"{folder}/trunk.trace.safetensors"] = "trace"
        for branch in (trunk.control, *branches.branches):
            roles[branch.trace], roles[branch.outcome] = "trace", "outcome"
            if branch.samples is not None:
                roles[branch.samples] = "samples"
        files = []
        for name, role in sorted(roles.items()):
            present = self._present(name)
            size = artifacts.file_size(self.path, present)
            sha256 = artifacts.file_sha256(self.path, present, expected_size=size)
            files.append(FileRecord(name, role, size, sha256))
        done = FinishedSeed(seed, trunk, branches, tuple(files))
        text = canonical.encode(done)
        sha256 = hashlib.sha256(text).hexdigest()
        store.write_bytes(self.seed_folder(seed) / _SEED_JOURNAL, [text, f"\n{sha256}".encode()])
        return done

    def code_sizes(self, code: Iterable[CodeFile]) -> list[int]:
        """Sizes in bytes of the copied sources."""
        return [
            artifacts.file_size(self.path, self._present(f"{CODE_FOLDER}/{file.name}"))
            for file in code
        ]

    def publish(self, files: Iterable[FileRecord], final_files: Mapping[str, bytes]) -> None:
        """Give every file its final name, then write ``final_files`` in order, manifest last."""
        for file in files:
            present = self._present(file.name)
            if present != file.name:
                store.rename(self.path / present, self.path / file.name)
        for name, data in final_files.items():
            store.write_bytes(self.path / name, data)
        self._clean_up()

    def _clean_up(self) -> None:
        """Remove journals, and what is left of runs that were killed while they wrote.

        Only after the manifest: until then the journals are what a run is finished from.
        """
        for name in artifacts.list_files(self.path):
            if name.endswith(store.PARTIAL) and name != _JOURNAL:
                store.remove(self.path / name)
        store.remove(self.path / _JOURNAL)

    def _present(self, name: str) -> str:
        """The name under which a file lies there now: still partial, or final.

        Both are there where a seed is run again that an earlier run was killed while publishing.
        """
        partial = f"{name}{store.PARTIAL}"
        return partial if os.path.lexists(self.path / partial) else name

    def _same_code(self, code: Iterable[CodeFile]) -> bool:
        for file in code:
            name = self._present(f"{CODE_FOLDER}/{file.name}")
            try:
                if artifacts.file_sha256(self.path, name) != file.sha256:
                    return False
            except ArtifactError:
                return False
        return True

    def _refuse_links(self) -> None:
        link = next((path for path in self.path.rglob("*") if path.is_symlink()), None)
        if link is not None:
            raise UnsafePath(
                f"a link lies in the folder: {link.relative_to(self.path)}",
                where=str(self.path),
                hint="give another --out",
            )

    def _refuse_other_files(self) -> None:
        others = [name for name in artifacts.list_files(self.path) if name != _LOCK]
        if others:
            raise StoreError(
                f"the folder is not empty: it holds {others[0]!r}",
                where=str(self.path),
                hint="give another --out",
            )

    def _check_same_run(self, path: Path, journal: Journal) -> str:
        earlier = canonical.decode(Journal, store.read_bytes(path), what=path.name)
        for field in ("plan", "target", "arguments", "plan_sha256"):
            if getattr(earlier, field) != getattr(journal, field):
                raise StoreError(
                    f"the unfinished run has another {field}",
                    where=str(self.path),
                    hint="--resume takes the same program and plan; give another --out for others",
                )
        return earlier.started


def merged_code(finished: list[FinishedSeed]) -> tuple[CodeFile, ...]:
    """Every source that a worker imported.

    Raises:
        PlanError: When one changed while the study ran.
    """
    known: dict[str, str] = {}
    for seed in finished:
        for file in (*seed.trunk.code, *seed.branches.code):
            if known.setdefault(file.name, file.sha256) != file.sha256:
                raise PlanError(
                    f"{file.name} changed while the study ran",
                    where=f"seed {seed.seed}",
                    hint="start again in another folder",
                )
    return tuple(CodeFile(name, sha256) for name, sha256 in sorted(known.items()))


def merged_environment(finished: list[FinishedSeed]) -> Environment:
    """The first seed's environment with the packages that any worker imported.

    Raises:
        PlanError: When two workers ran in different environments (a resumed run).
    """
    first = finished[0].trunk.environment
    packages: dict[str, str] = {}
    for seed in finished:
        for here in (seed.trunk.environment, seed.branches.environment):
            packages.update(here.packages)
            same = replace(here, packages={})
            for line in replace(first, packages={}).differences(same):
                raise PlanError(
                    f"the seeds ran in different environments: {line}",
                    where=f"seed {seed.seed}",
                    hint="start again in another folder",
                )
    return replace(first, packages=dict(sorted(packages.items())))
