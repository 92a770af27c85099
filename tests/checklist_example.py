"""The example of CHECKLIST.md: a manifest and a report with invented numbers and digests.

``python tests/checklist_example.py`` writes the generated parts of CHECKLIST.md again.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from auditkit.paper.checklist import fill
from auditkit.paper.lists import LISTS, QUESTIONS
from auditkit.paper.questions import SURVEY, Question, Source
from auditkit.paper.rendering import to_markdown
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.environment import Environment
from auditkit.records.estimate import (
    AS_IS,
    EFFECT,
    INCONCLUSIVE,
    PRIMARY,
    DistanceEstimate,
    EstimateTable,
    FloorDevelopment,
    Interval,
    SignedEstimate,
)
from auditkit.records.manifest import (
    BranchRecord,
    CodeFile,
    DataRecord,
    FileRecord,
    Producer,
    ProgramRecord,
    RunTimes,
    SeedRecord,
    StudyManifest,
)
from auditkit.records.plan import StudyPlan
from auditkit.records.report import CHECKS, CheckResult, VerificationReport
from auditkit.records.rng import RngContract, StreamContract

CHECKLIST = Path(__file__).parents[1] / "CHECKLIST.md"

#: Components of the example's training state.
_COMPONENTS = (
    *("batchnorm", "buffers", "optimizer/momentum_buffer", "param_groups", "params"),
    *("rng/numpy", "rng/python", "rng/torch"),
)

PLAN = StudyPlan(
    fork_at=100,
    window=20,
    horizon=300,
    seeds=[0, 1, 2, 3],
    perturbations=["momentum-reset", "order-reverse"],
    placebos=2,
)


def invented(*words: object) -> str:
    """A digest of nothing but its own name."""
    return hashlib.sha256(" ".join(map(str, ("example", *words))).encode()).hexdigest()


def example_branch(seed: int, name: str) -> BranchRecord:
    """A branch: the replica has the control's digests, a treatment those that it must have."""
    role, spec = PLAN.branch(name)
    own = "control" if role == "replica" else name
    touched = {
        "placebo": ("params",),
        "treatment": ("optimizer/momentum_buffer",) if name == "momentum-reset" else (),
    }.get(role, ())
    moved = name if name == "order-reverse" else "control"
    digests = {
        time: {
            component: invented(
                seed, time, component, own if time != "t0" or component in touched else "control"
            )
            for component in _COMPONENTS
        }
        for time in ("t0", "t0+W", "T")
    }
    return BranchRecord(
        name=name,
        role=role,
        perturbation=spec,
        version=DECLARATIONS[spec.name].version if spec else None,
        trace=f"seed-{seed:04}/{name}.trace.safetensors",
        outcome=f"seed-{seed:04}/{name}.outcome.safetensors",
        order_sha256=invented(seed, "order", moved),
        digests=digests,
    )


def example_seed(seed: int) -> SeedRecord:
    """One seed."""
    branches = tuple(example_branch(seed, name) for name in PLAN.branch_names)
    control = branches[0].digests
    streams = [
        StreamContract(
            stream=name,
            seed=str(int(invented(seed, name)[:15], 16)),
            start=invented(seed, name, "start"),
            fork=control["t0"][name],
            end=control["T"][name],
        )
        for name in _COMPONENTS
        if name.startswith("rng/")
    ]
    derived = [StreamContract(name, None, None, None, None) for name in ("order", "sample")]
    return SeedRecord(
        seed=seed,
        fork=f"seed-{seed:04}/fork.safetensors",
        fork_digests=dict(control["t0"]),
        order=f"seed-{seed:04}/order.safetensors",
        order_sha256=invented(seed, "order", "whole"),
        trunk=f"seed-{seed:04}/trunk.trace.safetensors",
        initial={name: invented(seed, "initial", name) for name in _COMPONENTS},
        components=("batch", *_COMPONENTS[:2], "order", *_COMPONENTS[2:]),
        rng=RngContract(
            "auditkit-seed/1", (*derived, *streams), ("random numbers that C libraries draw",)
        ),
        data=DataRecord(
            consumed_sha256=invented(seed, "data"),
            probe_sha256=invented("probe"),
            loader={"loader": "DataLoader", "dataset": "TensorDataset", "batch size": "64"},
            declared="digits 1.0",
            samples=19200,
        ),
        branches=branches,
    )


def example_manifest() -> StudyManifest:
    """A study of four seeds that nobody ever ran."""
    seeds = tuple(example_seed(seed) for seed in PLAN.seeds)
    code = (CodeFile("study.py", invented("study.py")),)
    names = {"code/study.py": ("code", 2_480)}
    for record in seeds:
        names |= {record.fork: ("fork", 61_440), record.order: ("order", 307_328)}
        names[record.trunk] = ("trace", 19_904)
        for branch in record.branches:
            names |= {branch.trace: ("trace", 39_392), branch.outcome: ("outcome", 33_552)}
    files = [
        FileRecord(name, role, size, invented(name.removeprefix("code/")))
        for name, (role, size) in sorted(names.items())
    ]
    return StudyManifest(
        schema_version="1",
        producer=Producer("auditkit", "0.1.0"),
        run=RunTimes("2026-01-01T00:00:00Z", "2026-01-01T00:18:00Z"),
        plan=PLAN,
        program=ProgramRecord(
            target="study.py:make_program",
            arguments={},
            description={
                "model": "Sequential",
                "parameters": "9930",
                "trainable parameters": "9930",
                "optimizer": "SGD",
                "hyper-parameters": "lr=0.05, momentum=0.9, weight_decay=0.0005",
                "accumulated batches": "1",
            },
            git_commit=invented("commit")[:40],
            git_dirty=False,
            code=code,
        ),
        environment=Environment(
            python="CPython 3.11.9",
            packages={"auditkit": "0.1.0", "numpy": "2.1.0", "torch": "2.6.0"},
            hardware={"system": "Linux", "processor": "An Example CPU", "cores": "8"},
            libraries={"mkl": "2024.2"},
            variables={"PYTHONHASHSEED": "0"},
            determinism={"deterministic algorithms": "True", "torch threads": "1"},
        ),
        seeds=seeds,
        files=tuple(files),
    )


def example_estimates() -> EstimateTable:
    """Estimates with invented numbers."""
    times = {"t0+W": 0.25, "T": 1.0}
    rows = [
        DistanceEstimate(
            perturbation=name,
            metric="tv",
            variant=AS_IS,
            time=time,
            family=PRIMARY,
            seeds=PLAN.seeds,
            per_seed=(0.08 * size, 0.09 * size, 0.07 * size, 0.1 * size),
            floor_per_seed=(0.015 * grown,) * 4,
            n=4,
            n_with_floor=4,
            n_left_out=0,
            mean_distance=0.085 * size,
            floor=0.015 * grown,
            excess=0.085 * size - 0.015 * grown,
            permutation_p=p,
            permutation_kind="exact",
            n_labelings=81,
            interval=Interval(-0.004 + 0.05 * size, 0.004 + 0.09 * size, 0.95),
            seed_distance=0.21,
            rho=0.25 * size,
            adjusted_p=holm * p,
            verdict=EFFECT if holm * p <= 0.05 else INCONCLUSIVE,
        )
        for name, size, p, holm in (
            ("momentum-reset", 1.0, 1 / 81, 4),
            ("order-reverse", 0.5, 5 / 81, 2),
        )
        for time, grown in times.items()
    ]
    signed = SignedEstimate(
        perturbation="momentum-reset",
        metric="accuracy",
        variant=AS_IS,
        time="T",
        family="exploratory",
        seeds=PLAN.seeds,
        per_seed=(-0.01, -0.02, 0.0, -0.01),
        n=4,
        n_left_out=0,
        ate=-0.01,
    )
    return EstimateTable(
        alpha=0.05,
        level=0.95,
        primary_metric="tv",
        n_seeds=4,
        n_seeds_left_out=0,
        placebos=2,
        times=PLAN.times,
        floor=FloorDevelopment(1e-3, 7, 8, developed=True),
        diverged=dict.fromkeys(PLAN.branch_names, 0),
        signed=(signed,),
        distances=tuple(rows),
        persistence=(),
    )


def example_report(*, replayed: bool = True) -> VerificationReport:
    """A report in which nothing is wrong; without a replay, 8 and 10 were not run."""
    checks = [
        CheckResult(number, "passed", f"{name}: as invented") for number, name in CHECKS.items()
    ]
    if not replayed:
        checks[7] = CheckResult(8, "not run", "nothing was replayed (--replay none)")
        checks[9] = CheckResult(10, "not run", "withheld: nothing was replayed")
    return VerificationReport(
        verdict="verified" if replayed else "integrity-only",
        exit_code=0,
        manifest_sha256=invented("manifest"),
        statement_sha256=invented("statement"),
        signed_by="SHA256:EXAMPLEexampleEXAMPLEexampleEXAMPLEexample0",
        trust="trusted by author.pub",
        replay="all 20 branches and 4 trunks" if replayed else "nothing was replayed",
        checks=tuple(checks),
        estimates=example_estimates() if replayed else None,
    )


def template() -> str:
    """The empty checklist: every list, and every item with its question and what fills it."""
    parts = []
    for name, source in LISTS.items():
        parts += [_template_list(source), *map(_template_item, QUESTIONS[name])]
    return "\n".join(parts)


def example() -> str:
    """The filled example, its headings two levels lower than on a page of its own."""
    text = to_markdown(fill(example_manifest(), example_report()))
    lines = [f"##{line}" if line.startswith("#") else line for line in text.splitlines()]
    return "\n".join(lines[2:]) + "\n"


def generated(page: str) -> str:
    """The page with its generated parts written again."""
    for name, text in (("template", template()), ("example", example())):
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->\n"
        head, _, rest = page.partition(begin)
        _, _, tail = rest.partition(end)
        page = f"{head}{begin}\n{text}\n{end}{tail}"
    return page


def _template_list(source: Source) -> str:
    return f"### {source.title}\n\n`--for {source.name}`. {source.version}\n"


def _template_item(question: Question) -> str:
    title = f"{question.number} {question.title}".strip()
    lines = [
        f"#### {title}\n",
        f"- **Question:** {question.text}",
        f"- **Filled from:** {question.filled_from}",
    ]
    if question.person:
        lines.append(f"- **A person must add:** {question.person}")
    answer = "Yes / No / N/A / TODO" if question.source == SURVEY else "TODO, always"
    lines.append(f"- **Answer:** {answer}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    CHECKLIST.write_text(generated(CHECKLIST.read_text(encoding="utf-8")), encoding="utf-8")
