"""One example or more of every record that stands in a JSON document."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from auditkit.records.agreement import Agreement, ReproductionReport
from auditkit.records.back_flow import Alignment, BackFlow
from auditkit.records.causal_break import BreakRecord
from auditkit.records.digest import Digest
from auditkit.records.environment import Environment
from auditkit.records.estimate import (
    ControlLevel,
    DistanceEstimate,
    EstimateTable,
    FloorDevelopment,
    Interval,
    Persistence,
    SignedEstimate,
)
from auditkit.records.evidence import Difference
from auditkit.records.further_estimates import Generalised, ProfileRow, Spread
from auditkit.records.imports import ImportedFiles
from auditkit.records.job import Description, Job, ModuleTrace, ProgramSource, Progress
from auditkit.records.journal import KeptCheckpoint, RecordingJournal
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
from auditkit.records.opened import OpenedFile, OpenedFiles
from auditkit.records.output_kinds import KINDS
from auditkit.records.own_perturbation import OwnPerturbation
from auditkit.records.parameter import Parameter
from auditkit.records.plan import PerturbationSpec, StudyPlan
from auditkit.records.plug_in import PlugIn
from auditkit.records.power import NoSpread, PowerPoint, PowerReport, PowerRow, SeedCost
from auditkit.records.preflight import Cost, NudgeTrial, Preflight
from auditkit.records.recording import CheckpointRecord, RankRecord, RecordingManifest, WorldRecord
from auditkit.records.registration import DataIdentity, RegisterResult, Registration
from auditkit.records.report import (
    CheckResult,
    Countersignature,
    Distance,
    Finding,
    Need,
    OpenedReport,
    PlanBinding,
    ReplayReport,
    SignedReport,
    StatedReplay,
    Timestamp,
    VerificationReport,
)
from auditkit.records.results import BranchesResult, BuiltProgram, TrunkResult
from auditkit.records.rng import ALWAYS_UNCOVERED, RngContract, StreamContract
from auditkit.records.segments import SegmentPlan
from auditkit.records.settings import ArgumentSetting, VariableSetting, VerifierSettings
from auditkit.records.sharding import Shard, ShardedState
from auditkit.records.task import RowsTask


def sha(digit: str) -> str:
    return digit * 64


PLAN = StudyPlan(
    fork_at=3,
    window=2,
    horizon=9,
    seeds=[0, 2**53, 2**63 - 1],  # beyond 2**53 an integer travels as a decimal string
    perturbations=["momentum-reset", "adam-reset:moments=m,step=keep", "order-shuffle:draw=2"],
    placebos=2,
    placebo_scale=4,
    primary_metric="js",
    margins={"accuracy": 0.5, "tv": 0.75},
    threads=2,
    augmentation_rng="inherit",
    probe_at=[4, 7],
    evidence_every=2,
    own_perturbations=[
        OwnPerturbation(
            "my-reset",
            2,
            "state",
            ("buffers/{name}",),
            ("params",),
            ("optimizer/*",),
            {"name": Parameter(default="queue", text=True)},
            "the queue := 0",
            "a paper",
            "a queue",
        )
    ],
    causal_break="adam-reset:moments=mv,step=reset",
    segments=SegmentPlan(0.75, same_classes=True, hold_batchnorm=True, alignment=True),
    evidence_digest="int64-mix/1",
)

ENVIRONMENT = Environment(
    python="3.11.7 CPython",
    packages={"torch": "2.13.0", "numpy": "2.4.6"},
    hardware={"processor": "x86_64", "cores": "2"},
    libraries={"mkl": "2026.1"},
    variables={"PYTHONHASHSEED": "0"},
    determinism={"torch threads": "1"},
)

IMPORTED = ImportedFiles(
    ("/lib/torch.py",),
    {"/run/code/study.py": "study"},
    ("git describe",),
    {"/run/code/study.py": (sha("c"),)},
)
CODE = (CodeFile("digits.py", sha("c")),)

RNG = RngContract(
    recipe="sha256-json-v1",
    streams=(
        StreamContract("order", None, None, None, None),
        StreamContract("rng/torch", str(2**63), sha("1"), sha("2"), sha("3")),
    ),
    uncovered=ALWAYS_UNCOVERED,
)

DATA = DataRecord(sha("d"), sha("e"), {"batch size": "64"}, "digits 1.0", 576, "model")


def digests(first: str) -> dict[str, dict[str, str]]:
    return {"t0": {"params": sha(first)}, "t0+W": {"params": sha("5")}, "T": {"params": sha("6")}}


CONTROL = BranchRecord(
    name="control",
    role="control",
    perturbation=None,
    version=None,
    trace="seed-0000/control.trace.safetensors",
    outcome="seed-0000/control.outcome.safetensors",
    order_sha256=sha("a"),
    digests=digests("4"),
    evaluated_on={"inputs": sha("8"), "labels": sha("9"), "recalibration": sha("e")},
    samples="seed-0000/control.samples.safetensors",
    reset=(),
    consumed="seed-0000/consumed.safetensors",
)
BREAK = BreakRecord(2, {"params": sha("7")}, ("param_groups[0].step",))
TREATMENT = BranchRecord(
    name="adam-reset--moments-m--step-keep",
    role="treatment",
    perturbation=PerturbationSpec("adam-reset", {"moments": "m", "step": "keep"}),
    version=1,
    trace="seed-0000/adam-reset--moments-m--step-keep.trace.safetensors",
    outcome="seed-0000/adam-reset--moments-m--step-keep.outcome.safetensors",
    order_sha256=sha("a"),
    digests=digests("7"),
    diverged_at=7,
    evaluated_on={"inputs": sha("8"), "labels": sha("9")},
    samples="seed-0000/treatment.samples.safetensors",
    reset=("optimizer.schedule.calls", "param_groups[0].step"),
    broken=BREAK,
)

BUILT = BuiltProgram({"params": sha("0")}, {"inputs": sha("8")}, {"model": "Net"})

SEED = SeedRecord(
    seed=2**60,
    fork="seed-0000/fork.safetensors",
    fork_digests={"params": sha("4")},
    order="seed-0000/order.safetensors",
    order_sha256=sha("b"),
    trunk="seed-0000/trunk.trace.safetensors",
    initial={"params": sha("0")},
    components=("batch", "order", "params"),
    rng=RNG,
    data=DATA,
    branches=(CONTROL, TREATMENT),
)

MEASURE = MeasureRecord("return", "higher", 0.0, 500.0, on="in")

OBSERVED = Observed(("in", "out"), (MEASURE, MeasureRecord("norm")), ("classes", "regression"), 2)

PROGRAM = ProgramRecord(
    target="digits.py:make_program",
    arguments={"data": "/data"},
    description={"model": "Sequential"},
    git_commit="0" * 40,
    git_dirty=True,
    code=CODE,
    command=("python", "digits.py", "{seed}"),
)

STUDIED = replace(PROGRAM, observed=OBSERVED)

OPENED = OpenedFiles(
    (
        OpenedFile("data/root/train.npy", 2**40, sha("d")),
        OpenedFile("~/elsewhere.csv", None, None, "elsewhere"),
    ),
    left_out=3,
)

EXTENSION = Extension("manifest-1.json", (0, 2**60), "2026-01-01T00:05:00Z")

MANIFEST = StudyManifest(
    schema_version="1",
    producer=Producer("auditkit", "0.1.0"),
    run=RunTimes("2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z"),
    plan=PLAN,
    program=STUDIED,
    environment=ENVIRONMENT,
    seeds=(SEED,),
    opened=OPENED,
    files=(
        FileRecord("code/digits.py", "code", 2633, sha("c")),
        FileRecord("seed-0000/fork.safetensors", "fork", 2**37, sha("f")),
    ),
    extends=(EXTENSION,),
    plug_ins=(PlugIn("zero-bias", "resets", "1.2", "resets.bias", sha("6")),),
)

CHECKPOINT = CheckpointRecord(
    2,
    "checkpoint-00000002.safetensors",
    {"params": sha("4")},
    {"order/loader-2": "0b" * 16},
)
KEPT = KeptCheckpoint(CHECKPOINT, sha("a"), sha("b"), ("params",), {"taken": 8})

RANK = RankRecord(
    rank=0,
    steps=2**20,
    epochs=3,
    traces=("trace/000000.safetensors",),
    components=("batch", "order", "params"),
    initial={"params": sha("0")},
    final={"params": sha("6")},
    order_sha256=sha("a"),
    consumed_sha256=sha("b"),
    rng=RNG,
    loaders={"": {"batch size": "64"}, "validation": {"batch size": "128"}},
    checkpoints=(CHECKPOINT,),
    resumed_at=(2,),
    proven_by=(9,),
    scalars="scalars.safetensors",
    sharded=("params",),
    lost_checkpoints=(replace(CHECKPOINT, step=1, file="checkpoint-00000001.safetensors"),),
)

WORLD = WorldRecord(2, "gloo", {"bucket_cap_mb": "25"})

RECORDING = RecordingManifest(
    schema_version="1",
    producer=Producer("auditkit", "0.1.0"),
    run=RunTimes("2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z"),
    seed=2**60,
    program=PROGRAM,
    command=("train.py", "--data", "~/data"),
    environment=ENVIRONMENT,
    world=WORLD,
    ranks=(RANK,),
    files=(
        FileRecord("checkpoint-00000002.safetensors", "checkpoint", 2**37, sha("f")),
        FileRecord("code/digits.py", "code", 2633, sha("c")),
        FileRecord("scalars.safetensors", "scalars", 99, sha("d")),
    ),
    closed_as="the process was killed",
    resumed_with=(("train.py", "--data", "~/other"), ()),
    sharded=(ShardedState(2, {"params": sha("8")}),),
    evidence_digest="int64-mix/1",
)

JOURNAL = RecordingJournal(
    seed=7,
    started="2026-01-01T00:00:00Z",
    initial={"params": sha("1")},
    stream_starts={"rng/torch": sha("2")},
    kept=(KEPT,),
    resumed_at=(2,),
    proven_by=(9,),
    ended="KeyboardInterrupt",
    size=2,
    environment=ENVIRONMENT,
    loaders={"": {"batch size": "4"}},
    program=PROGRAM,
    command=("--data", "~/data"),
    world=WORLD,
    final={"params": sha("6")},
    resumed_with=(("--data", "~/other"), ()),
    evidence_digest="int64-mix/1",
    unresumable="loader.dataset.rng is a generator that no checkpoint holds",
    sharded=("params",),
)

REPLAY = ReplayReport(
    schema_version="1",
    producer=Producer("auditkit", "0.1.0"),
    run=RunTimes("2026-01-02T00:00:00Z", "2026-01-02T00:10:00Z"),
    manifest_sha256=sha("9"),
    statement_sha256=sha("8"),
    command=("python", "train.py"),
    ranks=2,
    first_step=1,
    last_step=2**20,
    findings=(Finding("state drift: params is another", "rank 0", 3, "params"),),
    environment=ENVIRONMENT,
    checkpoints=4,
)

COST = Cost(0.01, 2.5, 0.25, 0.5, 2**53 + 1, 320, 797, 10, 2**20, ("2 threads",), True)

NUDGE = NudgeTrial(16, 64, 1e-6, 0.5, "an RMSD of", 100)

PREFLIGHT = Preflight(
    cost=COST,
    built=BUILT,
    code=CODE,
    opened=OPENED,
    environment=ENVIRONMENT,
    undecided=("adam-reset found nothing to change after 64 steps",),
    nudges=(NUDGE,),
    notes=("the program opened files that nobody hashed: ~/x.csv",),
)

SOURCE = ProgramSource("digits.py:make_program", "/programs", {"data": "/data"})

INTERVAL = Interval(-0.5, None, 0.95)

SIGNED = SignedEstimate(
    perturbation="momentum-reset",
    metric="accuracy",
    variant="as-is",
    time="T",
    family="exploratory",
    seeds=(0, 1),
    per_seed=(0.1, -0.25),
    n=2,
    n_left_out=1,
    ate=-0.075,
    sd=0.25,
    interval=INTERVAL,
    studentised=Interval(None, 0.5, 0.95),
    d_z=-0.3,
    control_sd=0.01,
    ate_in_control_sd=-7.5,
    t_p=0.2,
    sign_flip_p=0.25,
    sign_flip_kind="exact",
    adjusted_p=0.4,
    margin=0.02,
    equivalence_p=0.9,
    adjusted_equivalence_p=1.0,
    exactly_zero=True,
    verdict="inconclusive",
    notes=("few pairs",),
)

DISTANCE = DistanceEstimate(
    perturbation="momentum-reset",
    metric="tv",
    variant="recalibrated",
    time="t0+W",
    family="primary",
    seeds=(0, 1),
    per_seed=(0.2, 0.3),
    floor_per_seed=(None, 0.125),
    n=2,
    n_with_floor=1,
    n_left_out=1,
    mean_distance=0.25,
    floor=0.125,
    excess=0.175,
    permutation_p=0.25,
    permutation_kind="monte-carlo",
    n_labelings=4,
    interval=INTERVAL,
    studentised=Interval(None, 0.5, 0.95),
    below_p=0.75,
    adjusted_below_p=0.8,
    log_equivalence_p=0.7,
    seed_distance=0.5,
    rho=0.4,
    adjusted_p=0.5,
    margin=0.1,
    equivalence_p=0.75,
    adjusted_equivalence_p=0.8,
    exactly_zero=True,
    verdict="effect",
    notes=("one seed has no placebo",),
)

FLOOR = FloorDevelopment(1e-3, 3, 4, developed=False, of="a relative_distance of")
LEVEL = ControlLevel("accuracy", "as-is", "T", (0.5, 0.75), 0.625, 0.5, at_chance=True)
PERSISTENCE = Persistence(
    "momentum-reset", "tv", "as-is", 0.5, INTERVAL, "two pairs", Interval(0.25, None, 0.95)
)

SPREAD = Spread(
    *("momentum-reset", "tv", "as-is", "T"),
    n=3,
    new_seed=INTERVAL,
    noise_sd=0.1,
    noise_df=6,
    tau=0.2,
    i_squared=0.75,
    q=8.0,
    p=0.03,
    adjusted_p=0.06,
)
GENERALISED = Generalised("momentum-reset", "nll", "as-is", "T", 3, 100, 0.5, INTERVAL, 2.5)
PROFILE = ProfileRow(
    "momentum-reset", "tv", "T", "margin 1/4", 3, 24.5, 0.25, INTERVAL, 0.02, adjusted_p=0.04
)

BACK_FLOW = BackFlow(
    "momentum-reset",
    "tv",
    "as-is",
    "carried",
    (0, 1, 2),
    (0.25, 0.5, 0.75),
    (0.125, 0.25, None),
    3,
    1,
    d1=0.25,
    d2=0.75,
    mean=0.5,
    interval=INTERVAL,
    p=0.02,
    floor=0.1875,
    excess=0.25,
    excess_interval=INTERVAL,
    excess_p=0.03,
    adjusted_p=0.04,
    exactly_zero=False,
    verdict="amplification",
    margin=0.6,
    equivalence_p=0.07,
    adjusted_equivalence_p=0.08,
)
ALIGNED = Alignment(
    "control", (0, 1, 2), (0.25, 0.5, 0.75), 3, 1, mean=0.5, interval=INTERVAL, p=0.02
)

TABLE = EstimateTable(
    alpha=0.05,
    level=0.95,
    primary_metric="tv",
    n_seeds=2,
    n_seeds_left_out=1,
    placebos=3,
    times={"t0+1": 4, "t0+W": 5, "T": 9},
    floor=FLOOR,
    diverged={"control": 1},
    signed=(SIGNED,),
    distances=(DISTANCE,),
    persistence=(PERSISTENCE,),
    notes=("one seed diverged",),
    levels=(LEVEL,),
    spreads=(SPREAD,),
    generalised=(GENERALISED,),
    profiles=(PROFILE,),
    back_flow=(BACK_FLOW,),
    alignments=(ALIGNED,),
)

FINDING = Finding("the digests differ", "seed 0, control", 4, "params", exit_code=1)
CHECKS = (
    CheckResult(1, "passed", "schema 1", warnings=("an unlisted file",)),
    CheckResult(7, "failed", "2 branches", findings=(FINDING,)),
)

STATE_DISTANCE = Distance("seed 0, fork", "state", "params", 0.5, 0.25)
PROBE_DISTANCE = Distance("seed 0, carry", "probe", "T", 0.5, 0.25, 0.125)
COUNTERSIGNATURE = Countersignature(
    "countersign-0123456789abcdef.json", "SHA256:abc", True, "verified", "all 3 branches"
)
TIMESTAMP = Timestamp("2026-11-23T14:00:00Z", "CN=Authority", "1" * 30, "1.2.3")
BINDING = PlanBinding("plan-bound", ("plan, horizon: 3 was planned, 4 was run",), ("a remark",))

STATED = StatedReplay(
    "replay.json", "SHA256:abc", True, "equal", "2026-01-02T00:10:00Z", True, "5 steps equal"
)
ARGUMENT = ArgumentSetting("data", "~/data", "/data")
VARIABLE = VariableSetting("HF_HOME", "~/models")

SETTINGS = VerifierSettings(
    replay="4",
    replay_seed=-(2**60),
    budget=90.0,
    tolerance=0.01,
    arguments=(ARGUMENT,),
    command=("python", "train.py"),
    jobs=3,
    allow_code=True,
    strict=True,
    threshold=2,
    keys=("SHA256:abc",),
    authorities=(sha("4"),),
    variables=(VARIABLE,),
    fingerprints=("SHA256:abc",),
    require="sampled",
    generalise_probe=True,
    pilot=sha("8"),
    engine="dask",
)

NEED = Need("--arg data=PATH", "where it lies here: '/there' does not")

OPENED_REPORT = OpenedReport(1, 1, ("~/elsewhere.csv",), 4, ("data/path/train.bin",), 2)

REPORT = VerificationReport(
    verdict="failed",
    exit_code=1,
    manifest_sha256=sha("9"),
    statement_sha256=sha("8"),
    signed_by="SHA256:abc",
    trust="given with --key",
    replay="all 3 branches",
    checks=CHECKS,
    estimates=TABLE,
    environment_differences=("packages: torch is 2.13.0 there, 2.12.0 here",),
    environment=ENVIRONMENT,
    distances=(STATE_DISTANCE, PROBE_DISTANCE),
    countersignatures=(COUNTERSIGNATURE,),
    timestamps=(TIMESTAMP,),
    plan=BINDING,
    replays=(STATED,),
    settings=SETTINGS,
    opened=OPENED_REPORT,
    needs=(NEED,),
    schema="report",
    schema_version="1",
    auditkit="0.1.0",
)

SIGNED_REPORT = SignedReport(
    schema_version="1",
    producer=Producer("auditkit", "0.1.0"),
    run=RunTimes("2026-01-02T00:00:00Z", "2026-01-02T00:10:00Z"),
    report=REPORT,
)

DATA_IDENTITY = DataIdentity(0, sha("a"), 576, sha("e"), "digits 1.0", {"batch size": "64"})
REGISTRATION = Registration(
    schema_version="1",
    producer=Producer("auditkit", "0.1.0"),
    created="2026-01-01T00:00:00Z",
    plan=PLAN,
    seeds_from="plan",
    program=PROGRAM,
    initial={"params": sha("7")},
    data=DATA_IDENTITY,
    environment=ENVIRONMENT,
)

AGREEMENT = Agreement(
    perturbation="momentum-reset",
    metric="tv",
    variant="as-is",
    time="T",
    family="primary",
    recorded=0.25,
    reproduced=0.5,
    n=8,
    difference=0.25,
    interval=INTERVAL,
    adjusted_p=0.125,
    recorded_verdict="effect",
    reproduced_verdict="inconclusive",
    verdict="cannot tell",
    reason="neither a difference nor agreement is established",
)
REPRODUCTION = ReproductionReport(
    sha("1"),
    sha("2"),
    ("hardware: cpu is A there, B here",),
    False,
    ("seed 0, carry: the recorded table T is not of the recorded states",),
    (AGREEMENT,),
    ("helper.py",),
    ("data/root/train.npy",),
)

TRUNK = TrunkResult(
    control=CONTROL,
    rng=RNG,
    data=DATA,
    fork_digests={"params": sha("4")},
    order_sha256=sha("b"),
    initial={"params": sha("0")},
    components=("params",),
    program={"model": "Net"},
    environment=ENVIRONMENT,
    code=CODE,
    imported=IMPORTED,
    notes=("helper is in no distribution",),
    opened=OPENED,
    made={"params": sha("1")},
    left=("control-T.reference.partial",),
    observed=OBSERVED,
    read_back=True,
    moved=("study.SEEN", "the file best.pt"),
)

FORKED = replace(
    MANIFEST,
    plan=PLAN.changed(
        probe_at=(), evidence_every=1, fork_at=[3, 4, 7], causal_break=None, segments=None
    ),
    further=(FurtherFork(4, (SEED,)), FurtherFork(7, (SEED,))),
)

EXAMPLES: tuple[Any, ...] = (
    STATE_DISTANCE,
    PROBE_DISTANCE,
    COUNTERSIGNATURE,
    TIMESTAMP,
    BINDING,
    STATED,
    VARIABLE,
    ARGUMENT,
    SETTINGS,
    SIGNED_REPORT,
    DATA_IDENTITY,
    REGISTRATION,
    RegisterResult({"model": "Net"}, {"params": sha("7")}, CODE, DATA_IDENTITY, ENVIRONMENT),
    AGREEMENT,
    REPRODUCTION,
    Digest("sha256/tensor-v1", sha("0")),
    Difference(4, ("order", "params", "loss")),
    ENVIRONMENT,
    INTERVAL,
    Interval(0.25, 0.5, 0.9),
    SIGNED,
    SignedEstimate("carry", "nll", "as-is", "T", "primary", (), (), 0, 0),
    DISTANCE,
    DistanceEstimate("carry", "tv", "as-is", "T", "primary", (), (), (), 0, 0, 0),
    FLOOR,
    LEVEL,
    PERSISTENCE,
    SPREAD,
    GENERALISED,
    PROFILE,
    BACK_FLOW,
    ALIGNED,
    PLAN.segments,
    BREAK,
    TABLE,
    SOURCE,
    Job("describe", SOURCE, None, 0, "/runs/out"),
    Job(
        kind="branches",
        program=SOURCE,
        plan=PLAN,
        seed=2**63 - 1,
        out="/out/seed-0000",
        suffix=".partial",
        fork="/out/fork",
        order="/out/order",
        branches=("replica", "placebo-0"),
        step=4,
        code="/out/code",
        sources=CODE,
        sample_seed=1,
        versions={"placebo-0": 1},
        listed=("data.csv",),
        nudges=(1, 16),
        position_recipe=2,
        references="/out/given",
        one_by_one=True,
        shares_imports=True,
    ),
    COST,
    Description(None),
    Description(PLAN, PLAN.own_perturbations),
    PLAN.own_perturbations[0],
    PlugIn("zero-bias", "", "", "resets.bias", sha("9")),
    PLAN.changed(probe_at=(), evidence_every=1),
    NUDGE,
    PREFLIGHT,
    ModuleTrace((("0 (Conv2d) input", sha("1")), ("0 (Conv2d) output", sha("2")))),
    Progress(0, "trunk", 3, 3, 9, 2, 4),
    Producer("auditkit", "0.1.0"),
    RunTimes("2026-01-01T00:00:00Z", "2026-01-01T00:10:00Z"),
    EXTENSION,
    MANIFEST,
    Parameter(default=1, minimum=1),
    Parameter(default="m", choices=("m", "v")),
    Parameter(default="", text=True),
    Parameter(default="0.5", decimal=True, optional=True),
    PerturbationSpec("order-shuffle", {"draw": 3, "how": "x"}),
    PLAN,
    FINDING,
    *CHECKS,
    REPORT,
    *RNG.streams,
    RNG,
    CONTROL,
    TREATMENT,
    *CODE,
    DATA,
    SEED,
    PROGRAM,
    STUDIED,
    *MANIFEST.files,
    FileRecord("seed-0000/order.safetensors", "order", 2**54, sha("f")),
    TRUNK,
    replace(TRUNK, further=(TRUNK,)),
    FORKED,
    *FORKED.further,
    FORKED.plan,
    replace(TABLE, forks=(3, 4)),
    replace(TABLE, equal={"optimizer-reset": "momentum-reset"}),
    MEASURE,
    OBSERVED,
    KINDS["regression"],
    BUILT,
    BranchesResult(
        (CONTROL, TREATMENT),
        ENVIRONMENT,
        CODE,
        IMPORTED,
        ("helper is in no distribution",),
        (BUILT,),
    ),
    IMPORTED,
    *OPENED.files,
    OPENED,
    OPENED_REPORT,
    NEED,
    CHECKPOINT,
    RANK,
    WORLD,
    RECORDING,
    *RECORDING.sharded,
    Shard((5, 2), 3),
    REPLAY,
    KEPT,
    JOURNAL,
    RowsTask(
        checkpoint="/run/checkpoint.safetensors",
        drawn={"batch/loader-2": "0a" * 16},
        first_step=3,
        last_step=9,
        modules_at=5,
        dump_at=6,
        dump_to="/run/dump.safetensors",
        order_head=sha("a"),
        consumed_head=sha("b"),
        deterministic=True,
        threads=2,
        commit_at=(4, 8),
        evidence_digest="int64-mix/1",
    ),
    PowerReport(
        metric="nll",
        effect=0.1,
        margin=0.2,
        power=0.8,
        alpha=0.05,
        n_tests=4,
        fewest=8,
        rows=(PowerRow("adam-reset", "T", 5, 0.1, 0.2, 40, 12, 0.3, 9, 14, 0.82),),
        curve=(PowerPoint(3, 0.1, 0.15),),
        cost=SeedCost(300, 1.5, 2**40),
        pilot_seeds=(0, 1),
        left_out=(NoSpread("carry", "T", "exactly 0"),),
    ),
    NoSpread("carry", "T", "exactly 0"),
    PowerRow("adam-reset", "T", 5, 0.1, 0.2, 40, 12, 0.3, 9, 14, 0.82),
    PowerPoint(3, 0.1, 0.15),
    SeedCost(300, 1.5, 2**40),
)
