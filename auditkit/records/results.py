"""What the worker processes of a seed hand back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from auditkit.errors import ProgramError, UncapturedState
from auditkit.records.environment import Environment
from auditkit.records.imports import ImportedFiles
from auditkit.records.manifest import BranchRecord, CodeFile, DataRecord
from auditkit.records.observed import Observed
from auditkit.records.opened import OpenedFiles
from auditkit.records.plan import LEFT_OUT_IF_DEFAULT
from auditkit.records.rng import RngContract


@dataclass(frozen=True)
class BuiltProgram:
    """What a factory made, before step 1; every process of a seed must be given the same.

    Attributes:
        initial: ``sha256/tensor-v1`` by component.
        probe: The same of the probe's ``inputs`` and ``labels``.
        description: Model, optimizer and so on, with hyper-parameters.
    """

    initial: dict[str, str]
    probe: dict[str, str]
    description: dict[str, str]

    def differences(self, other: BuiltProgram) -> tuple[str, ...]:
        """Names of what is not the same."""
        pairs = (
            (self.initial, other.initial),
            (
                {f"probe {name}": sha256 for name, sha256 in self.probe.items()},
                {f"probe {name}": sha256 for name, sha256 in other.probe.items()},
            ),
            (self.description, other.description),
        )
        return tuple(
            name
            for here, there in pairs
            for name in sorted({**here, **there})
            if here.get(name) != there.get(name)
        )

    def require_same(self, other: BuiltProgram, when: str = "in every process") -> None:
        """Require another call for the same seed to have been given the same.

        Args:
            other: What was made then.
            when: How it was called.

        Raises:
            UncapturedState: When it was not.
        """
        changed = self.differences(other)
        if changed:
            raise UncapturedState(
                f"the factory does not make the same {when}: {', '.join(changed)}",
                hint="let what it makes depend on the seed and on its arguments, and on nothing "
                "that is counted, dated or drawn elsewhere",
            )


@dataclass(frozen=True)
class TrunkResult:
    """What the trunk worker of a seed hands back.

    Attributes:
        control: The control branch.
        rng: The seed's RNG contract.
        data: Identity of its data.
        fork_digests: ``sha256/tensor-v1`` of every section of the fork file.
        order_sha256: Over the (epoch, index) pairs of steps 1..T.
        initial: ``sha256/tensor-v1`` by component, before step 1.
        components: Component names of the control's trace.
        program: Description of the objects: model, optimizer, scheduler classes, parameter
            count, hyper-parameters.
        environment: Where it ran.
        code: Modules that were imported and are not installed.
        imported: Files of all modules, where a replay asks for them.
        notes: What a reviewer would miss, of the modules that were imported and the files that
            were opened.
        opened: What the program opened while it was built; None where nobody looked (a script).
        made: As ``initial``, before the first epoch began, which may draw.
        left: Working files beside the others: what branches are compared with where a probe's
            tables are too large to keep.
        observed: What branches are compared on.
        further: The same of every further fork, where the plan has several.
        read_back: Whether its process read a file that was written since it began: another branch
            might be writing it, so that they run one by one.
        moved: What the program's code keeps by itself, where no snapshot looks, and was another at
            the end; and a file that it wrote and read back.
    """

    control: BranchRecord
    rng: RngContract
    data: DataRecord
    fork_digests: dict[str, str]
    order_sha256: str
    initial: dict[str, str]
    components: tuple[str, ...]
    program: dict[str, str]
    environment: Environment
    code: tuple[CodeFile, ...]
    imported: ImportedFiles | None = None
    notes: tuple[str, ...] = ()
    opened: OpenedFiles | None = None
    made: dict[str, str] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    observed: Observed = field(default=Observed(), metadata=LEFT_OUT_IF_DEFAULT)
    further: tuple[TrunkResult, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)
    read_back: bool = field(default=False, metadata=LEFT_OUT_IF_DEFAULT)
    moved: tuple[str, ...] = field(default=(), metadata=LEFT_OUT_IF_DEFAULT)

    @property
    def built(self) -> BuiltProgram:
        """What the factory made."""
        on = self.control.evaluated_on or {}
        probe = {name: on[name] for name in on if name != "recalibration"}
        return BuiltProgram(self.made or self.initial, probe, self.program)


@dataclass(frozen=True)
class BranchesResult:
    """What the branch workers of a seed hand back: one record a branch, in the order asked.

    The rest is as in :class:`TrunkResult`.

    Attributes:
        built: What the factory made, in as many ways as it made it; none for a script.
    """

    branches: tuple[BranchRecord, ...]
    environment: Environment
    code: tuple[CodeFile, ...]
    imported: ImportedFiles | None = None
    notes: tuple[str, ...] = ()
    built: tuple[BuiltProgram, ...] = ()

    @classmethod
    def joined(cls, parts: Sequence[BranchesResult]) -> BranchesResult:
        """The results of several processes as one.

        Raises:
            ProgramError: When they ran in different environments.
        """
        first = parts[0]
        packages: dict[str, str] = {}
        for part in parts:
            packages.update(part.environment.packages)
            alike = replace(part.environment, packages=first.environment.packages)
            for line in first.environment.differences(alike):
                name = part.branches[0].name
                raise ProgramError(f"{name} ran in another environment: {line}")
        imported = [part.imported for part in parts if part.imported is not None]
        return cls(
            branches=tuple(branch for part in parts for branch in part.branches),
            environment=replace(first.environment, packages=dict(sorted(packages.items()))),
            code=tuple(dict.fromkeys(file for part in parts for file in part.code)),
            imported=ImportedFiles.joined(imported) if imported else None,
            notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
            built=tuple(_distinct(built for part in parts for built in part.built)),
        )


def _distinct(records: Iterable[BuiltProgram]) -> list[BuiltProgram]:
    found: list[BuiltProgram] = []
    for record in records:
        if record not in found:
            found.append(record)
    return found
