"""Where and how far two runs differ: ``auditkit diff``.

Two studies are compared seed by seed and branch by branch, by name; two recordings rank by
rank; and any one trace with any other. Nothing is verified: what the manifests say is taken as
said. Times of the run, the version of auditkit, who signed, the state of a git repository and the
command line are notes: they make no two runs different.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from auditkit.diagnose.details import SampleDifference, first_sample, first_unequal, settings_of
from auditkit.diagnose.first_difference import first_mismatch, first_steps
from auditkit.diagnose.manifest_texts import NOTE_NAMES, manifest_texts, note_texts
from auditkit.diagnose.runs import ComparedRun, Texts, TraceSource, open_run, require_one_recipe
from auditkit.errors import UsageError
from auditkit.evidence.comparison import Mismatch, causing_step
from auditkit.evidence.distances import Magnitude, measure, total_variations
from auditkit.evidence.settings import SettingDifference
from auditkit.formats.outcome_names import outcome_differences
from auditkit.records.evidence import Trace


@dataclass(frozen=True)
class SnapshotDistance:
    """How far two snapshots are apart.

    Attributes:
        step: The step before which both states were taken.
        components: What differs in them.
    """

    step: int
    components: tuple[Magnitude, ...]


@dataclass(frozen=True)
class TraceDifference:
    """Where two traces differ first.

    Attributes:
        trace: What they are of: ``seed 0, control``, ``rank 0``, or two names.
        kind: ``order drift``, ``data drift``, ``RNG drift``, ``state drift`` or ``length``.
        step: The first step whose row differs.
        made_by: The step that made it: a row holds the state before its step.
        text: Both, in words.
        component: The component that is named first.
        others: Further components that differ in that row.
        first_steps: The first step at which each component differs, of those that ever do.
        settings: Hyper-parameters that differ, as far as their values are on disk.
        sample: The first sample with other bytes, where single samples were digested.
        distance: At the first step from there on of which both have a snapshot; None without.
    """

    trace: str
    kind: str
    step: int
    made_by: int
    text: str
    component: str
    others: tuple[str, ...]
    first_steps: dict[str, int]
    settings: tuple[SettingDifference, ...]
    sample: SampleDifference | None
    distance: SnapshotDistance | None


@dataclass(frozen=True)
class FieldDifference:
    """Something that is said of both runs, and differently.

    Attributes:
        section: ``environment``, ``plan``, ``code``, ``RNG contract`` ...
        name: What.
        left: What one run says; None where it says nothing.
        right: What the other run says.
    """

    section: str
    name: str
    left: str | None
    right: str | None


@dataclass(frozen=True)
class OutcomeDifference:
    """A probe table that is not the same, bit for bit.

    Attributes:
        trace: What it is of.
        table: ``t0``, ``t0+W``, ``T``, a further time, perhaps with ``/recalibrated``; or
            ``labels``.
        total_variation: Mean over the probe; None where the tables cannot be compared.
    """

    trace: str
    table: str
    total_variation: float | None


@dataclass(frozen=True)
class RunDifference:
    """Everything that ``auditkit diff`` has to say.

    Attributes:
        left: One run, as it was given.
        right: The other.
        same: Whether nothing differs but what was ignored, or stands in the notes.
        ignored: What differs and was to be ignored; the notes have it.
        equal: What was compared and is the same.
        traces: Where traces differ first.
        fields: What is said differently of the two.
        outcomes: Probe tables that differ.
        notes: What is not the same and makes no difference, and what could not be compared.
    """

    left: str
    right: str
    same: bool
    ignored: tuple[str, ...]
    equal: tuple[str, ...]
    traces: tuple[TraceDifference, ...]
    fields: tuple[FieldDifference, ...]
    outcomes: tuple[OutcomeDifference, ...]
    notes: tuple[str, ...]


#: What may be ignored: sections of what the manifests say.
IGNORABLE = ("command", "environment", "code", "program", "plan", "seed", "world", "data", "logged")


def compare_runs(left: str, right: str, ignored: Collection[str] = ()) -> RunDifference:
    """Compare two runs, or two traces of runs.

    Args:
        left: A manifest or a folder, perhaps with ``#`` and a trace.
        right: The other.
        ignored: Of :data:`IGNORABLE`, what is only noted; the command line always is.

    Raises:
        UsageError: When one does not exist or is not clear, or their digests are of two recipes.
        MalformedError: When one of them is broken.
    """
    ours, theirs = open_run(left), open_run(right)
    require_one_recipe(ours, theirs)
    return _Comparison(ours, theirs, {"command", *ignored}).result()


class _Comparison:
    """The state of one comparison."""

    def __init__(self, left: ComparedRun, right: ComparedRun, ignored: Collection[str]) -> None:
        self._left = left
        self._right = right
        self._ignored = ignored
        self._equal: list[str] = []
        self._traces: list[TraceDifference] = []
        self._fields: list[FieldDifference] = []
        self._outcomes: list[OutcomeDifference] = []
        self._notes: list[str] = []

    def result(self) -> RunDifference:
        """Compare everything."""
        left, right = self._left, self._right
        self._compare_manifests()
        groups: dict[tuple[str, str], None] = {}
        for ours, theirs in self._pairs():
            if (ours.group, theirs.group) not in groups:
                groups[ours.group, theirs.group] = None
                self._compare_groups(ours, theirs)
            self._compare_traces(ours, theirs)
            self._compare_logged(ours, theirs)
        passed_over = [field for field in self._fields if field.section in self._ignored]
        self._fields = [field for field in self._fields if field not in passed_over]
        self._notes += [
            f"{field.section}, {field.name}: {field.left}; {field.right}"
            if field.name != field.section
            else f"{field.section}: {field.left}; {field.right}"
            for field in passed_over
        ]
        differs = self._traces or self._fields or self._outcomes
        return RunDifference(
            left=left.name,
            right=right.name,
            same=not differs,
            ignored=tuple(dict.fromkeys(field.section for field in passed_over)),
            equal=tuple(self._equal),
            traces=tuple(self._traces),
            fields=tuple(self._fields),
            outcomes=tuple(self._outcomes),
            notes=tuple(self._notes),
        )

    def _pairs(self) -> Iterator[tuple[TraceSource, TraceSource]]:
        """The traces that are compared with each other.

        Raises:
            UsageError: When one run is one trace and it is not clear which of the other's.
        """
        left, right = self._left, self._right
        if (left.is_selected or right.is_selected) and (
            len(left.sources) == len(right.sources) == 1
        ):
            yield from zip(left.sources.values(), right.sources.values(), strict=True)
            return
        labels = sorted(set(left.sources) | set(right.sources), key=_natural)
        for label in labels:
            ours, theirs = left.sources.get(label), right.sources.get(label)
            if ours is not None and theirs is not None:
                yield ours, theirs
            elif not left.is_selected and not right.is_selected:
                texts = ["present" if source else None for source in (ours, theirs)]
                self._fields.append(FieldDifference("traces", label, *texts))
        both = set(left.sources) & set(right.sources)
        if not both and (left.is_selected or right.is_selected):
            raise UsageError(
                "the two have no trace of one name",
                hint="name one on either side, like #seed-0/control or #rank-0",
            )

    def _compare_manifests(self) -> None:
        left, right = self._left, self._right
        if "unfinished" in (left.kind, right.kind):
            self._notes.append("a run without manifest: only traces and outcomes were compared")
        elif left.kind != right.kind:
            self._fields.append(FieldDifference("run", "kind", left.kind, right.kind))
        ours, theirs = left.manifest, right.manifest
        if ours is None or theirs is None:
            return
        here, there = manifest_texts(ours), manifest_texts(theirs)
        for section in here:
            if section in there:
                self._compare_texts(section, here[section], there[section])
        if not list(ours.environment.differences(theirs.environment)):
            self._note_harmless("environment")
        signers = [", ".join(run.signers) or "nobody" for run in (left, right)]
        if signers[0] != signers[1]:
            self._notes.append(f"signed, so they say, by: {signers[0]}; {signers[1]}")
        for name, *texts in zip(NOTE_NAMES, note_texts(ours), note_texts(theirs), strict=True):
            if texts[0] != texts[1]:
                self._notes.append(f"{name}: {texts[0]}; {texts[1]}")

    def _note_harmless(self, section: str) -> None:
        """Make notes of what differs in a section and changes no bits."""
        harmless = [field for field in self._fields if field.section == section]
        for field in harmless:
            self._fields.remove(field)
            self._notes.append(f"{section}, {field.name}: {field.left}; {field.right}")
        if harmless:
            self._equal.append(f"{section}, in all that can change bits")

    def _compare_texts(
        self, section: str, here: Texts, there: Texts, label: str = "", called: str = ""
    ) -> None:
        """Note what one section says differently; ``called`` is its name where nothing does."""
        names = [
            name for name in sorted(set(here) | set(there)) if here.get(name) != there.get(name)
        ]
        for name in names:
            place = f"{label}: {name}" if label else name
            self._fields.append(FieldDifference(section, place, here.get(name), there.get(name)))
        if not names and here:
            name = called or section
            self._equal.append(f"{name} of {label}" if label else name)

    def _compare_groups(self, ours: TraceSource, theirs: TraceSource) -> None:
        label = _joined(ours.group, theirs.group)
        if self._left.manifest is None or self._right.manifest is None:
            return
        idle = _idle(ours, theirs)
        here, there = (_without(side.streams, idle) for side in (ours, theirs))
        self._compare_texts("RNG contract", here, there, label)
        starts = ([side.streams.get(f"{name}: start") for name in idle] for side in (ours, theirs))
        elsewhere = [name for name, *both in zip(idle, *starts, strict=True) if len({*both}) > 1]
        if elsewhere:
            names = ", ".join(elsewhere)
            self._notes.append(f"{label}: {names} began elsewhere, and nothing drew from there")
        if self._left.kind == self._right.kind:
            of = "settings of the loaders" if self._left.kind == "recording" else "data"
            self._compare_texts("data", ours.data, theirs.data, label, of)

    def _compare_traces(self, ours: TraceSource, theirs: TraceSource) -> None:
        left, right, label = self._left, self._right, _joined(ours.label, theirs.label)
        mismatch = first_mismatch(label, *self._trace_pair(ours, theirs))
        if mismatch is None:
            self._equal.append(f"trace of {label}")
            if ours.commitments and theirs.commitments and left.kind == right.kind:
                idle = _idle(ours, theirs)
                here, there = (_without(side.commitments, idle) for side in (ours, theirs))
                self._compare_texts("commitments", here, there, label)
        else:
            self._traces.append(self._trace_difference(mismatch, ours, theirs))
            if (mismatch.step or 0) > 1:
                self._equal.append(
                    f"trace of {label} before step {mismatch.step}, where both have it"
                )
        if ours.outcome is not None and theirs.outcome is not None:
            self._compare_outcomes(label, ours.outcome, theirs.outcome)

    def _trace_pair(
        self, ours: TraceSource, theirs: TraceSource
    ) -> tuple[Iterator[Trace], Iterator[Trace]]:
        """Both traces, without what is not compared in them."""
        idle = _idle(ours, theirs)

        def kept(run: ComparedRun, source: TraceSource) -> Iterator[Trace]:
            for piece in run.trace(source):
                columns = {name: c for name, c in piece.columns.items() if name not in idle}
                yield replace(piece, columns=columns)

        return kept(self._left, ours), kept(self._right, theirs)

    def _compare_logged(self, ours: TraceSource, theirs: TraceSource) -> None:
        """What the loops logged: of each name the first step at which it is another number."""
        if ours.scalars is None or theirs.scalars is None:
            return  # one that logged nothing, or an earlier build that kept nothing
        label = _joined(ours.label, theirs.label)
        found = first_unequal(self._left.scalars(ours), self._right.scalars(theirs))
        for name, step, *texts in found:
            place = f"{label}: {name} at step {step}"
            self._fields.append(FieldDifference("logged", place, *texts))
        if not found:
            self._equal.append(f"what {label} logged")

    def _trace_difference(
        self, mismatch: Mismatch, ours: TraceSource, theirs: TraceSource
    ) -> TraceDifference:
        sides = (self._left, ours), (self._right, theirs)
        steps = first_steps(*self._trace_pair(ours, theirs))
        return TraceDifference(
            trace=mismatch.branch,
            kind=mismatch.kind,
            step=mismatch.step or 0,
            made_by=causing_step(mismatch),
            text=str(mismatch),
            component=mismatch.component,
            others=mismatch.others,
            first_steps=steps,
            settings=settings_of(*sides, steps),
            sample=first_sample(*sides) if mismatch.kind == "data drift" else None,
            distance=self._distance(mismatch, ours, theirs),
        )

    def _distance(
        self, mismatch: Mismatch, ours: TraceSource, theirs: TraceSource
    ) -> SnapshotDistance | None:
        first = mismatch.step or 0
        steps = set(ours.snapshots) & set(theirs.snapshots)
        step = min((step for step in steps if step >= first), default=None)
        if step is None or mismatch.kind == "length":
            return None
        here = self._left.tensors(ours.snapshots[step])
        there = self._right.tensors(theirs.snapshots[step])
        return SnapshotDistance(step, measure(here, there, _idle(ours, theirs)))

    def _compare_outcomes(self, label: str, ours: str, theirs: str) -> None:
        here, there = self._left.outcome(ours), self._right.outcome(theirs)
        variation = total_variations(here, there)
        found = [
            OutcomeDifference(label, name, variation.get(name))
            for name in outcome_differences(here.tables, there.tables)
        ]
        if here.labels.tobytes() != there.labels.tobytes():
            found.append(OutcomeDifference(label, "labels", None))
        self._outcomes += found
        if not found:
            self._equal.append(f"outcome of {label}")


def _idle(ours: TraceSource, theirs: TraceSource) -> list[str]:
    """What no two rows are compared in: streams that nothing drew from, and other parts of it."""
    differing = set(ours.sharded.items()) ^ set(theirs.sharded.items())
    apart = sorted({name for name, _ in differing})
    return [*(name for name in ours.idle if name in theirs.idle), *apart]


def _without(texts: Texts, idle: Collection[str]) -> Texts:
    """Texts of all but these streams; of a stream it begins or ends with its name."""
    return {
        name: text
        for name, text in texts.items()
        if not {name.rpartition(": ")[2], name.partition(": ")[0]} & set(idle)
    }


def _joined(left: str, right: str) -> str:
    return left if left == right else f"{left} / {right}"


def _natural(label: str) -> tuple[list[int], str]:
    group, _, name = label.partition(", ")
    return [int(word) for word in group.split() if word.isdecimal()], name
