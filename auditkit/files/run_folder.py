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
from dataclasses import dataclass, fields, replace
from pathlib import Path

from auditkit.errors import FormatError, MalformedError, PlanError, StoreError, UnsafePath
from auditkit.files import artifacts, locks, store
from auditkit.files.run_parts import SeedParts, notes, present, seed_name
from auditkit.formats import canonical
from auditkit.formats.quote import clipped_apart
from auditkit.records.environment import Environment
from auditkit.records.manifest import CODE_FOLDER, MANIFEST_NAME, CodeFile, FileRecord
from auditkit.records.plan import StudyPlan
from auditkit.records.plan_values import spelled_seeds
from auditkit.records.results import BranchesResult, BuiltProgram, TrunkResult

_JOURNAL = f"run.json{store.PARTIAL}"
_LOCK = f"run.lock{store.PARTIAL}"


@dataclass(frozen=True)
class Journal:
    """What an unfinished run is.

    Attributes:
        plan: Its plan.
        target: Factory, as :class:`ProgramSource` names it.
        arguments: Extra arguments of the factory.
        started: When it was first started.
        plan_sha256: SHA-256 of the signed plan that it is bound to, or None.
        code: The program's sources.
        data: SHA-256 of the files that it opened while it was built, by name.
        built: What its factory made for the first seed; None for a script.
        environment: Where it ran.
        seeds: The seeds that it runs.
        extends_sha256: SHA-256 of the finished manifest that they are added to, or None.
    """

    plan: StudyPlan
    target: str
    arguments: dict[str, str]
    started: str
    plan_sha256: str | None
    code: tuple[CodeFile, ...]
    data: dict[str, str]
    built: BuiltProgram | None
    environment: Environment
    seeds: tuple[int, ...]
    extends_sha256: str | None = None

    def changes(self, other: Journal) -> Iterator[str]:
        """What another run of it does not have in common, a line each.

        Sources and files are compared where both have them: what is imported late is not there
        to be compared, and :func:`merged_code` compares it at the end.
        """
        yield from self._study_changes(other)
        sources = {file.name: file.sha256 for file in other.code}
        for file in self.code:
            if sources.get(file.name, file.sha256) != file.sha256:
                yield f"{file.name} has changed since the run was stopped"
        for name, sha256 in self.data.items():
            if other.data.get(name, sha256) != sha256:
                yield f"{name} has changed since the run was stopped"
        for name in self.environment_differences(other):
            yield f"the environment has changed since the run was stopped: {name}"
        if self.built is not None and other.built is not None:
            for name in self.built.differences(other.built):
                yield f"the program now makes another {name} than when the run was stopped"

    def _study_changes(self, other: Journal) -> Iterator[str]:
        """What the other one was asked for in another way."""
        both = (self, other)
        plans = ({f.name: _spelled(f.name, one.plan) for f in fields(StudyPlan)} for one in both)
        if lines := "; ".join(_differences(*plans)):
            yield f"the unfinished run has another plan: {lines}"
        for field in ("target", "plan_sha256", "extends_sha256"):
            texts = ({field: getattr(one, field) or "none"} for one in both)
            for line in _differences(*texts):
                yield f"the unfinished run has another {line}"
        if lines := "; ".join(_differences(self.arguments, other.arguments)):
            yield f"the unfinished run has other arguments: {lines}"

    def environment_differences(self, other: Journal) -> tuple[str, ...]:
        """Lines about the environment; which packages were imported is not compared."""
        here, there = (replace(each.environment, packages={}) for each in (self, other))
        return tuple(here.differences(there))


def _differences(there: Mapping[str, str], here: Mapping[str, str]) -> Iterator[str]:
    """What two sets of named texts have differently, with both."""
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            texts = clipped_apart(there.get(name, "none"), here.get(name, "none"))
            yield "{}: {} there, {} here".format(name, *texts)


def _spelled(field: str, plan: StudyPlan) -> str:
    """A field of a plan, as it is typed."""
    if field == "seeds":
        return spelled_seeds(plan.seeds)
    if field == "perturbations":
        return "; ".join(spec.typed for spec in plan.perturbations)
    return str(getattr(plan, field))


@dataclass(frozen=True)
class FinishedSeed:
    """A seed whose files are complete.

    Attributes:
        seed: The seed.
        trunk: What the trunk's process answered.
        branches: What those of the branches did.
        files: Its files under their final names.
        fork: Its fork, where the study has several.
    """

    seed: int
    trunk: TrunkResult
    branches: BranchesResult
    files: tuple[FileRecord, ...]
    fork: int | None = None


class RunFolder:
    """A run's folder.

    Args:
        path: The folder; it need not exist yet.
        fork: The fork whose seeds' folders are meant, where the study has several.
    """

    def __init__(self, path: Path, fork: int | None = None) -> None:
        self.path, self.fork = path, fork

    def seed_name(self, seed: int) -> str:
        """Name of a seed's folder."""
        return seed_name(seed, self.fork)

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

    def require_free(self, *, resume: bool) -> None:
        """Require a folder that a run may write into.

        Raises:
            StoreError: When it holds another run, or something else.
            UnsafePath: When it holds a link, behind which nothing is the run's.
        """
        if not os.path.lexists(self.path):
            above = next(folder for folder in self.path.absolute().parents if folder.exists())
            if not above.is_dir():
                store.make_folder(self.path)  # says why it cannot
            return
        store.make_folder(self.path)  # refuses what is no folder
        self._refuse_links()
        if (self.path / MANIFEST_NAME).exists():
            self._settled_manifest()
            raise StoreError(
                "the folder holds a finished run",
                where=str(self.path),
                hint="give another --out; auditkit run --add-seeds adds seeds to it",
            )
        if not (self.path / _JOURNAL).exists():
            self._refuse_other_files()
        elif notes(self.path) and not resume:
            raise StoreError(
                f"the folder holds an unfinished run: {self.progress()}",
                where=str(self.path),
                hint="go on with --resume, or give another --out",
            )

    def finished_manifest(self, *, resume: bool) -> bytes:
        """The manifest of the finished run that seeds are added to.

        Raises:
            StoreError: When there is none, or adding seeds was begun and is not gone on with.
        """
        self._refuse_links()
        if not (self.path / MANIFEST_NAME).exists():
            raise StoreError(
                "there is no finished run that seeds could be added to", where=str(self.path)
            )
        data = self._settled_manifest()
        if not resume and notes(self.path):
            raise StoreError(
                f"seeds are being added to this run: {self.progress()}",
                where=str(self.path),
                hint="go on with --resume",
            )
        return data

    def begin(self, journal: Journal) -> str:
        """Claim a free folder for a run, or go on with it; without a part it is started anew.

        Returns:
            When the run was first started.

        Raises:
            StoreError: When the folder holds parts of another run.
        """
        earlier = self.require_same(journal)
        if earlier is not None:
            return earlier.started
        store.write_bytes(self.path / _JOURNAL, canonical.encode(journal))
        return journal.started

    def require_same(self, journal: Journal) -> Journal | None:
        """Require the complete parts in the folder to be of the same run; its journal.

        Raises:
            StoreError: When they are of another one.
        """
        earlier = self._journal()
        if earlier is None or not notes(self.path):
            return None
        for change in earlier.changes(journal):
            raise StoreError(
                change,
                where=str(self.path),
                hint="--resume takes the same program, data and plan; give another --out for "
                "others",
            )
        return earlier

    def progress(self) -> str:
        """Which parts of which seeds are complete: ``seed 0: trunk and 5 of 7 branches``.

        Empty where no run was begun.
        """
        journal = self._journal()
        if journal is None:
            return ""
        plan = journal.plan
        forks = plan.forks if plan.further_forks else (None,)
        n_branches, whole, lines = len(forks) * (len(plan.branch_names) - 1), 0, []
        for seed in journal.seeds:
            n_parts = sum(len(notes(self.path, seed, fork)) for fork in forks)
            n_done = max(n_parts - len(forks), 0)  # the trunk is noted for every fork
            whole += n_done == n_branches
            if n_parts and n_done < n_branches:
                lines.append(f"seed {seed}: trunk and {n_done} of {n_branches} branches")
        return "; ".join([f"{whole} of {len(journal.seeds)} seeds complete", *lines])

    @property
    def has_parts(self) -> bool:
        """Whether anything is complete, so that there is something to go on with."""
        return bool(notes(self.path))

    def parts(self, seed: int) -> SeedParts:
        """What is complete of a seed."""
        return SeedParts(self.path, seed, self.fork)

    def code_sizes(self, code: Iterable[CodeFile]) -> list[int]:
        """Sizes in bytes of the copied sources."""
        return [
            artifacts.file_size(self.path, present(self.path, f"{CODE_FOLDER}/{file.name}"))
            for file in code
        ]

    def publish(self, files: Iterable[FileRecord], final_files: Mapping[str, bytes]) -> None:
        """Give every file its final name, then write ``final_files`` in order, manifest last."""
        for file in files:
            name = present(self.path, file.name)
            if name != file.name:
                store.rename(self.path / name, self.path / file.name)
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

    def _journal(self) -> Journal | None:
        path = self.path / _JOURNAL
        if not path.exists():
            return None
        try:
            return canonical.decode(Journal, store.read_bytes(path), what=path.name)
        except MalformedError as error:
            raise FormatError(
                f"the journal of an unfinished run is damaged: {error.message}",
                where=str(path),
                hint="put it back from a copy, or begin anew with another --out: nothing else says "
                "of which run the complete parts are that lie here",
            ) from error

    def _settled_manifest(self) -> bytes:
        """The manifest, after what a run that was killed just after writing it had left is gone."""
        data = store.read_bytes(
            self.path / MANIFEST_NAME, max_bytes=canonical.MAX_BYTES, what="a manifest"
        )
        journal = self._journal()
        if journal and journal.extends_sha256 != hashlib.sha256(data).hexdigest():
            self._clean_up()
        return data

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


def merged_code(
    finished: list[FinishedSeed], earlier: Iterable[CodeFile] = ()
) -> tuple[CodeFile, ...]:
    """Every source that a worker imported.

    Args:
        finished: What they answered.
        earlier: Sources of the study that seeds were added to.

    Raises:
        PlanError: When one changed while the study ran.
    """
    known = {file.name: file.sha256 for file in earlier}
    for seed in finished:
        for file in (*seed.trunk.code, *seed.branches.code):
            if known.setdefault(file.name, file.sha256) != file.sha256:
                raise PlanError(
                    f"{file.name} changed while the study ran",
                    where=f"seed {seed.seed}",
                    hint="start again in another folder",
                )
    return tuple(CodeFile(name, sha256) for name, sha256 in sorted(known.items()))


def merged_environment(
    finished: list[FinishedSeed], earlier: Environment | None = None
) -> Environment:
    """The first seed's environment with the packages that any worker imported.

    Args:
        finished: What the workers answered.
        earlier: Environment of the study that seeds were added to.

    Raises:
        PlanError: When two workers ran in different environments (a resumed run).
    """
    first = finished[0].trunk.environment if earlier is None else earlier
    packages: dict[str, str] = {} if earlier is None else dict(earlier.packages)
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
