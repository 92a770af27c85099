"""What an interrupted run keeps: the trunk and every finished branch of a seed.

A part is complete once its note lies beside its files, ``trunk.json.partial`` or
``BRANCH.json.partial``; a note ends in its own SHA-256 and lists the files with theirs. A part
whose files or sources are not what its note says is run again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from auditkit.errors import ArtifactError, AuditError
from auditkit.files import artifacts, store
from auditkit.formats import canonical
from auditkit.records.manifest import CODE_FOLDER, BranchRecord, CodeFile, FileRecord
from auditkit.records.plan import StudyPlan
from auditkit.records.results import BranchesResult, TrunkResult

#: Name of the part that is trunk and control.
TRUNK = "trunk"

_NOTE = f".json{store.PARTIAL}"


@dataclass(frozen=True)
class TrunkPart:
    """Trunk and control of a seed, whose files are complete.

    Attributes:
        seed: The seed.
        result: What its process answered.
        files: Its files under their final names.
        fork: Its fork, where the study has several.
    """

    seed: int
    result: TrunkResult
    files: tuple[FileRecord, ...]
    fork: int | None = None

    @property
    def name(self) -> str:
        """Name of its note."""
        return TRUNK


@dataclass(frozen=True)
class BranchPart:
    """A branch of a seed, whose files are complete.

    Attributes:
        seed: The seed.
        result: What its process answered.
        files: Its files under their final names.
        fork: Its fork, where the study has several.
    """

    seed: int
    result: BranchesResult
    files: tuple[FileRecord, ...]
    fork: int | None = None

    @property
    def name(self) -> str:
        """The branch."""
        return self.result.branches[0].name


_Part = TypeVar("_Part", TrunkPart, BranchPart)


class SeedParts:
    """The parts of one seed.

    Args:
        folder: The run's folder.
        seed: The seed.
        fork: Its fork, where the study has several.
    """

    def __init__(self, folder: Path, seed: int, fork: int | None = None) -> None:
        self._folder, self._seed, self._fork = folder, seed, fork

    def keep_trunk(self, result: TrunkResult) -> TrunkPart:
        """Note that trunk and control are complete.

        Raises:
            StoreError: When their files cannot be read or the note not be written.
        """
        name = seed_name(self._seed, self._fork)
        roles = {f"{name}/fork.safetensors": "fork", f"{name}/order.safetensors": "order"}
        roles[f"{name}/trunk.trace.safetensors"] = "trace"
        files = self._files({**roles, **_roles([result.control])})
        return self._write(TrunkPart(self._seed, result, files, self._fork))

    def keep_branch(self, result: BranchesResult) -> BranchPart:
        """Note that a branch is complete.

        Raises:
            StoreError: As :meth:`keep_trunk`.
        """
        files = self._files(_roles(result.branches))
        return self._write(BranchPart(self._seed, result, files, self._fork))

    def trunk(self) -> TrunkPart | None:
        """The complete trunk, rechecked by SHA-256."""
        return self._read(TRUNK, TrunkPart)

    def branches(self, names: Sequence[str]) -> dict[str, BranchPart]:
        """The complete branches among these, rechecked by SHA-256."""
        found = ((name, self._read(name, BranchPart)) for name in names)
        return {name: part for name, part in found if part is not None}

    def discard(self) -> None:
        """Remove every note: without its trunk no branch is worth anything."""
        for path in notes(self._folder, self._seed, self._fork):
            store.remove(path)

    def _note(self, name: str) -> Path:
        return self._folder / seed_name(self._seed, self._fork) / f"{name}{_NOTE}"

    def _write(self, part: _Part) -> _Part:
        text = canonical.encode(part)
        sha256 = hashlib.sha256(text).hexdigest()
        store.write_bytes(self._note(part.name), [text, f"\n{sha256}".encode()])
        return part

    def _read(self, name: str, kind: type[_Part]) -> _Part | None:
        path = self._note(name)
        if not path.exists():
            return None
        try:
            text, _, sha256 = store.read_bytes(path).rpartition(b"\n")
            if hashlib.sha256(text).hexdigest().encode() != sha256:
                return None
            part = canonical.decode(kind, text, what=path.name)
            # one that is not its own seed's and branch's was put under another's name
            is_own = (part.seed, part.fork, part.name) == (self._seed, self._fork, name)
            return part if is_own and self._is_whole(part) else None
        except AuditError:
            return None  # whatever is wrong with it, it is run again

    def _is_whole(self, part: TrunkPart | BranchPart) -> bool:
        """Whether its files and sources are what it says."""
        for file in part.files:
            here, size = present(self._folder, file.name), file.size
            if artifacts.file_sha256(self._folder, here, expected_size=size) != file.sha256:
                return False
        return self._same_code(part.result.code)

    def _files(self, roles: dict[str, str]) -> tuple[FileRecord, ...]:
        files = []
        for name, role in sorted(roles.items()):
            here = present(self._folder, name)
            size = artifacts.file_size(self._folder, here)
            sha256 = artifacts.file_sha256(self._folder, here, expected_size=size)
            files.append(FileRecord(name, role, size, sha256))
        return tuple(files)

    def _same_code(self, code: Iterable[CodeFile]) -> bool:
        for file in code:
            name = present(self._folder, f"{CODE_FOLDER}/{file.name}")
            try:
                if artifacts.file_sha256(self._folder, name) != file.sha256:
                    return False
            except ArtifactError:
                return False
        return True


def seed_name(seed: int, fork: int | None = None) -> str:
    """Name of a seed's folder; of a fork's, where the study has several."""
    return f"seed-{seed:04d}" if fork is None else f"seed-{seed:04d}-fork-{fork}"


def present(folder: Path, name: str) -> str:
    """The name under which a file lies there now: still partial, or final.

    Both are there where a part is run again that an earlier run was killed while publishing.
    """
    partial = f"{name}{store.PARTIAL}"
    return partial if os.path.lexists(folder / partial) else name


def notes(folder: Path, seed: int | None = None, fork: int | None = None) -> list[Path]:
    """Every note that lies in a run's folder, of one seed and fork or of all."""
    where = "seed-*" if seed is None else seed_name(seed, fork)
    return sorted(folder.glob(f"{where}/*{_NOTE}"))


def steps_left(folder: Path, plan: StudyPlan, seeds: Iterable[int]) -> dict[int, int]:
    """Training steps that an interrupted run has before it, by seed, as its notes have it."""
    forks, n_branches = plan.forks, len(plan.branch_names) - 1
    left = {}
    for seed in seeds:
        numbers = {
            fork: len(notes(folder, seed, fork if plan.further_forks else None)) for fork in forks
        }
        # The trunk is noted at every fork, and no branch before it.
        left[seed] = (
            sum((n_branches + 1 - n) * (plan.horizon - fork) for fork, n in numbers.items())
            if all(numbers.values())
            else plan.seed_steps
        )
    return left


def _roles(branches: Iterable[BranchRecord]) -> dict[str, str]:
    roles = {}
    for branch in branches:
        roles[branch.trace], roles[branch.outcome] = "trace", "outcome"
        if branch.samples is not None:
            roles[branch.samples] = "samples"
        if branch.consumed is not None:
            roles[branch.consumed] = "consumed"
    return roles
