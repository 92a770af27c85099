"""A run that can be compared: a study, a recording, a branch of a study, or an unfinished run.

A run is named by a manifest or a folder, and one of its traces by what follows ``#``::

    runs/digits                     everything in it
    runs/digits#seed-0/control      one branch, or the trunk, of one seed
    runs/forks#seed-0-fork-40/control     the same, of one of several forks
    runs/exp1/manifest.json#rank-1  one process of a recording

Nothing is verified here. Only regular files below the folder are read.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from auditkit.errors import ArtifactError, MalformedError, UsageError
from auditkit.evidence.still_streams import still_streams
from auditkit.files import artifacts, store
from auditkit.files.unfinished import refuse_misnamed
from auditkit.formats import canonical, tensor_file
from auditkit.formats.quote import brief
from auditkit.formats.run_files import Outcome, outcome_from_tensors, trace_from_tensors
from auditkit.formats.scalar_file import Series, scalars_from_tensors
from auditkit.formats.snapshot_file import SHARDING
from auditkit.formats.statements import Manifest, manifest_from_statement
from auditkit.records.evidence import Trace
from auditkit.records.fork_points import views
from auditkit.records.manifest import MANIFEST_NAME, BranchRecord, SeedRecord, StudyManifest
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.records.recording import RankRecord, RecordingManifest
from auditkit.records.rng import RngContract
from auditkit.records.tensor import FileTensor, RawTensor
from auditkit.signing.envelopes import open_envelope

Texts = Mapping[str, str]

#: Bytes of a trace from which on it is not in memory as a whole.
_AT_ONCE = 2**24

_CHOICE = re.compile(
    r"(?a)seed-(?P<seed>\d{1,20})(?:-fork-(?P<fork>\d{1,9}))?/(?P<branch>[^/#]+)"
    r"|rank-(?P<rank>\d{1,9})"
)

#: Names of an unfinished run's files; the parts are those of :data:`_CHOICE`.
_BRANCH_FILE = re.compile(
    r"(?a)seed-(\d+)(?:-fork-(\d+))?/([^/]+)\.(trace|outcome)\.safetensors(?:\.partial)?",
)
_CHUNK_FILE = re.compile(
    r"(?a)(?:(?:.*/)?rank-(\d+)/)?trace/(?:rank-(\d+)/)?(\d+)\.safetensors(?:\.partial)?"
)
_CHECKPOINT_FILE = re.compile(
    r"(?a)(?:(?:.*/)?rank-(\d+)/)?(?:.*/)?checkpoint-(\d+)\.safetensors(?:\.partial)?"
)


@dataclass(frozen=True)
class SampleSource:
    """Where the digests of a branch's samples are, in the window of a study.

    Attributes:
        file: Name of their file.
        order: Name of the file with the control's order.
        fork_at: Steps before the window.
        window: Its steps.
        spec: The branch's perturbation.
        seed: The study's seed.
    """

    file: str
    order: str
    fork_at: int
    window: int
    spec: PerturbationSpec | None
    seed: int


@dataclass(frozen=True)
class TraceSource:
    """One trace of a run, and what belongs to it.

    Attributes:
        label: ``seed 0, control`` or ``rank 0``.
        group: What it shares its streams and data with: ``seed 0`` or ``rank 0``.
        traces: Names of its trace files, in order.
        outcome: Name of its outcome file, where it has one.
        snapshots: Names of snapshots of its state, by the step before which the state was so.
        commitments: SHA-256 by what they are of.
        streams: The RNG contract of its group.
        data: Identity of its group's data.
        samples: Where its samples were digested one by one.
        scalars: Name of the file of what its loop logged.
        idle: Random streams that nothing drew from.
        sharded: Components that are parts of a whole, with which part of it.
    """

    label: str
    group: str
    traces: tuple[str, ...] = ()
    outcome: str | None = None
    snapshots: Mapping[int, str] = field(default_factory=dict)
    commitments: Texts = field(default_factory=dict)
    streams: Texts = field(default_factory=dict)
    data: Texts = field(default_factory=dict)
    samples: SampleSource | None = None
    scalars: str | None = None
    idle: tuple[str, ...] = ()
    sharded: Texts = field(default_factory=dict)


@dataclass(frozen=True)
class ComparedRun:
    """A run that is compared, or one trace of it.

    Attributes:
        name: As it was given.
        kind: ``study``, ``recording`` or ``unfinished``.
        root: Its folder.
        manifest: What its manifest says; None where it is unfinished.
        sources: Its traces by label.
        signers: What its signatures say of their keys.
        is_selected: Whether one trace was asked for.
    """

    name: str
    kind: str
    root: Path
    manifest: Manifest | None
    sources: Mapping[str, TraceSource]
    signers: tuple[str, ...] = ()
    is_selected: bool = False

    @property
    def evidence_digest(self) -> str | None:
        """Recipe of the state's digests, where there is a manifest that says it."""
        if self.manifest is None:
            return None
        if isinstance(self.manifest, StudyManifest):
            return self.manifest.plan.evidence_digest
        return self.manifest.evidence_digest

    def trace(self, source: TraceSource) -> Iterator[Trace]:
        """The pieces of a trace, one in memory at a time; a large one stays in its file.

        Raises:
            MalformedError: When a file is not there or is no trace, here or when it is looked at.
        """
        for name in source.traces:
            yield trace_from_tensors(self._stored(name), what=name)

    def _stored(self, name: str) -> Mapping[str, RawTensor | FileTensor]:
        """Tensors of a file; where it is large they stay there until they are looked at."""
        with self._malformed(name):
            size = artifacts.file_size(self.root, name)
        if size <= _AT_ONCE:
            return self.tensors(name)[0]

        def read(start: int, n_bytes: int) -> bytes:
            opened = artifacts.open_reader(self.root, name, expected_size=size)
            with self._malformed(name), opened as read_at:
                return read_at(start, n_bytes)

        return tensor_file.from_file(read, size, what=f"{self.root.name}/{name}")[0]

    def outcome(self, name: str) -> Outcome:
        """An outcome file; raises as :meth:`trace`."""
        return outcome_from_tensors(self.tensors(name)[0], what=name)

    def scalars(self, source: TraceSource) -> Mapping[str, Series]:
        """What a loop logged; raises as :meth:`trace`."""
        name = source.scalars
        return {} if name is None else scalars_from_tensors(self.tensors(name)[0], what=name)

    def tensors(self, name: str) -> tuple[Mapping[str, RawTensor], object]:
        """Tensors and metadata of a file; raises as :meth:`trace`."""
        with self._malformed(name):
            data = artifacts.safe_read(self.root, name)
        return store.read_tensors(data, what=f"{self.root.name}/{name}")

    @contextmanager
    def _malformed(self, name: str) -> Iterator[None]:
        """Exit code 1 would say that the two differ."""
        try:
            yield
        except ArtifactError as error:
            raise MalformedError(error.message, where=f"{self.root.name}/{name}") from error


def open_run(name: str) -> ComparedRun:
    """Find out what a name means.

    Args:
        name: A manifest or a folder, perhaps with ``#`` and a trace.

    Raises:
        UsageError: When there is no such thing.
        MalformedError: When the manifest is malformed.
    """
    place, hash_, choice = name.rpartition("#")
    if not hash_ or _is_there(Path(name)):
        place, hash_ = name, ""
    path = Path(place)
    manifest = path / MANIFEST_NAME
    if _is_there(manifest):
        path = manifest
    run = _unfinished(name, path) if _is_there(path, folder=True) else _finished(name, path)
    return _select(run, choice) if hash_ else run


def _is_there(path: Path, *, folder: bool = False) -> bool:
    try:
        return path.is_dir() if folder else path.exists()
    except OSError:  # a name that is too long, a folder that cannot be looked into
        return False


def _select(run: ComparedRun, choice: str) -> ComparedRun:
    found = _CHOICE.fullmatch(choice)
    if found is None:
        raise UsageError(f"#{brief(choice)} is not like #seed-0/control or #rank-0")
    label = f"rank {int(found['rank'])}" if found["rank"] else ""
    label = label or f"{_group(found['seed'], found['fork'])}, {found['branch']}"
    if label not in run.sources:
        alike = difflib.get_close_matches(label, run.sources, n=1)
        meant = f"did you mean {alike[0]}? " if alike else ""
        hint = f"{meant}there are {'; '.join(run.sources)}"
        raise UsageError(f"{run.name}: there is no {label}", hint=hint)
    return replace(run, sources={label: run.sources[label]}, is_selected=True)


def _group(seed: str | int, fork: str | int | None) -> str:
    """How traces of a seed are called; of a fork's, where the study has several."""
    return f"seed {int(seed)}" if fork is None else f"seed {int(seed)} fork {int(fork)}"


def _finished(name: str, path: Path) -> ComparedRun:
    refuse_misnamed(path)
    data = store.read_bytes(path, max_bytes=canonical.MAX_BYTES, what="a manifest")
    envelope = open_envelope(data, what=str(path))
    manifest = manifest_from_statement(envelope.payload, what=str(path))
    if isinstance(manifest, RecordingManifest):
        kind, bare = "recording", ComparedRun(name, "recording", path.parent, manifest, {})
        sources = [_rank_source(rank, manifest, bare) for rank in manifest.ranks]
    else:
        kind = "study"
        sources = [
            source
            for view in views(manifest)
            for record in view.seeds
            for source in _seed_sources(record, view, several=bool(manifest.further))
        ]
    signers = tuple(signature.keyid or "a key without name" for signature in envelope.signatures)
    return ComparedRun(name, kind, path.parent, manifest, _labelled(sources, str(path)), signers)


def _labelled(sources: list[TraceSource], where: str) -> dict[str, TraceSource]:
    found = {source.label: source for source in sources}
    if len(found) != len(sources):
        raise MalformedError("two traces have one name", where=where)
    return found


def _seed_sources(
    record: SeedRecord, manifest: StudyManifest, *, several: bool
) -> Iterator[TraceSource]:
    row = manifest.plan.fork_at + 1
    group = _group(record.seed, manifest.plan.fork_at if several else None)
    data = {
        "consumed_sha256": record.data.consumed_sha256,
        "probe_sha256": record.data.probe_sha256,
        "declared": record.data.declared or "",
        **{f"loader: {name}": text for name, text in record.data.loader.items()},
    }
    trunk = TraceSource(
        label=f"{group}, trunk",
        group=group,
        traces=(record.trunk,),
        snapshots={row: record.fork},
        commitments=_prefixed("start", record.initial),
        streams=_streams(record.rng),
        data=data,
    )
    yield trunk
    for branch in record.branches:
        yield replace(
            trunk,
            label=f"{group}, {branch.name}",
            traces=(branch.trace,),
            outcome=branch.outcome,
            # The fork is the state before a branch's change: only the control goes on from it.
            snapshots=trunk.snapshots if branch.role == "control" else {},
            commitments=_commitments(branch),
            samples=_sample_source(record, branch, manifest.plan),
        )


def _sample_source(
    record: SeedRecord, branch: BranchRecord, plan: StudyPlan
) -> SampleSource | None:
    if branch.samples is None:
        return None
    spec, seed = branch.perturbation, record.seed
    return SampleSource(branch.samples, record.order, plan.fork_at, plan.window, spec, seed)


def _commitments(branch: BranchRecord) -> Texts:
    found = {"order": branch.order_sha256}
    for time, digests in branch.digests.items():
        found |= _prefixed(time, digests)
    return found


def _rank_source(rank: RankRecord, manifest: RecordingManifest, run: ComparedRun) -> TraceSource:
    label, world = f"rank {rank.rank}", manifest.world
    part = f"{label} of {world.size}, {world.settings.get('fully_shard')}"
    loaders = {
        f"loader {loader or 'for training'}: {name}": text
        for loader, settings in rank.loaders.items()
        for name, text in settings.items()
    }
    source = TraceSource(
        label=label,
        group=label,
        traces=rank.traces,
        snapshots={checkpoint.step + 1: checkpoint.file for checkpoint in rank.checkpoints},
        commitments={
            "order": rank.order_sha256,
            "batches": rank.consumed_sha256,
            **_prefixed("start", rank.initial),
            **_prefixed("end", rank.final),
        },
        streams=_streams(rank.rng),
        data=loaders,
        scalars=rank.scalars,
        sharded=dict.fromkeys((*rank.sharded, SHARDING), part) if rank.sharded else {},
    )
    return replace(source, idle=still_streams(rank, run.trace(source)))


def _streams(contract: RngContract) -> Texts:
    found = {"recipe": contract.recipe}
    for stream in contract.streams:
        found[f"{stream.stream}: seed"] = stream.seed or "not seeded"
        found[f"{stream.stream}: start"] = stream.start or "no state"
    return found


def _prefixed(prefix: str, texts: Texts) -> dict[str, str]:
    return {f"{prefix}: {name}": text for name, text in texts.items()}


def require_one_recipe(left: ComparedRun, right: ComparedRun) -> None:
    """Two runs can be compared row by row where their digests are of one recipe.

    Raises:
        UsageError: When their manifests name two.
    """
    ours, theirs = left.evidence_digest, right.evidence_digest
    if None not in {ours, theirs} and ours != theirs:
        raise UsageError(
            "the rows of the two have digests of two recipes, which cannot be compared",
            expected=ours,
            found=theirs,
            hint="run one of them again with the evidence_digest of the other",
        )


def _unfinished(name: str, folder: Path) -> ComparedRun:
    """A folder without manifest: whatever traces lie there under the names of a run."""
    sources: dict[str, TraceSource] = {}
    chunks: dict[str, dict[int, str]] = {}
    # A file that is still partial is newer than a whole one of the same name.
    for file in artifacts.list_files(folder):
        if branch := _BRANCH_FILE.fullmatch(file):
            group, is_trace = _group(branch[1], branch[2]), branch[4] == "trace"
            label = f"{group}, {branch[3]}"
            source = sources.get(label, TraceSource(label, group))
            change = replace(source, traces=(file,)) if is_trace else replace(source, outcome=file)
            sources[label] = change
        elif chunk := _CHUNK_FILE.fullmatch(file):
            label = f"rank {int(chunk[1] or chunk[2] or 0)}"
            sources.setdefault(label, TraceSource(label, label))
            chunks.setdefault(label, {})[int(chunk[3])] = file
        elif checkpoint := _CHECKPOINT_FILE.fullmatch(file):
            label = f"rank {int(checkpoint[1] or 0)}"
            source = sources.get(label, TraceSource(label, label))
            snapshots = {**source.snapshots, int(checkpoint[2]) + 1: file}
            sources[label] = replace(source, snapshots=snapshots)
    for label, pieces in chunks.items():
        sources[label] = replace(sources[label], traces=tuple(f for _, f in sorted(pieces.items())))
    found = {label: source for label, source in sources.items() if source.traces}
    if not found:
        raise UsageError(f"{folder}: there is neither a manifest nor a trace here")
    return ComparedRun(name, "unfinished", folder, None, found)
