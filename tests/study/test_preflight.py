"""Preflight: whatever cannot be done to a program is said before a study spends anything on it."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from record_examples import NUDGE, PREFLIGHT
from studies import PLAN, PROGRAMS, TINY, InProcessWorkers

from auditkit.cli.console import console
from auditkit.cli.preflight import (
    _floor,
    estimate_cost,
    print_dry_run,
    print_outlook,
    wall_seconds,
)
from auditkit.engines.spec import EngineSpec
from auditkit.errors import NothingToPerturb, PlanError, ProgramError, UncapturedState
from auditkit.records.declaration import DECLARATIONS
from auditkit.records.job import ProgramSource
from auditkit.records.plan import StudyPlan
from auditkit.records.preflight import Preflight
from auditkit.statistics.design import design_of
from auditkit.study.preflight import FEW_STEPS, MANY_STEPS, settled, try_program
from auditkit.study.request import StudyRequest, resolve

#: What fits an optimizer that keeps what these do; everything else does not.
FITTING = {
    "Adadelta": {"second-moment-reset"},
    "Adafactor": {"second-moment-reset"},
    "Adagrad": {"second-moment-reset"},
    "Adam": {"adam-reset"},
    "AdamW": {"adam-reset"},
    "Adamax": {"second-moment-reset"},
    "ASGD": {"second-moment-reset"},
    "NAdam": {"adam-reset"},
    "RAdam": {"adam-reset"},
    "RMSprop": {"second-moment-reset"},
    "Rprop": set(),
    "SGD": set(),
    "momentum": {"momentum-reset"},
}


def tried(
    plan: StudyPlan = PLAN, target: str = TINY, folder: Path = PROGRAMS, **arguments: Any
) -> Preflight:
    """Try a program in this process."""
    fields = {name: arguments.pop(name) for name in ("steps", "nudge") if name in arguments}
    source = ProgramSource(target, str(folder), arguments)
    resolved = resolve(plan, DECLARATIONS)
    return try_program(InProcessWorkers(), source, resolved, seed=plan.seeds[0], **fields)


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a program whose factory changes the tiny one's."""

    def write(text: str) -> Path:
        for name in ("tiny_study.py", "position.py"):
            (tmp_path / name).write_bytes((PROGRAMS / name).read_bytes())
        head = "import torch, auditkit as ak\nfrom dataclasses import replace\nimport tiny_study\n"
        (tmp_path / "own.py").write_text(head + text)
        return tmp_path

    return write


def test_a_program_that_can_be_studied_is_described() -> None:
    found = tried(nudge=True)
    assert {file.name for file in found.code} == {"tiny_study.py"}
    assert found.built.description["optimizer"] == "SGD"
    assert found.cost.n_probe > 0
    assert found.cost.n_classes == 3
    assert min(found.cost.step_seconds, found.cost.snapshot_bytes, found.cost.row_bytes) > 0
    assert found.undecided == ()
    (nudge,) = found.nudges
    assert (nudge.scale, nudge.steps) == (1, PLAN.horizon - PLAN.fork_at)
    assert 0 <= nudge.end < 1e-3


@pytest.mark.parametrize(
    ("probes", "primary", "of"),
    [
        ("real", "rmsd", "an RMSD over the predictions' own SD of"),
        ("emb", "cka_distance", "a relative_distance of"),
    ],
)
def test_a_nudge_of_what_is_no_probability_is_told_in_other_words(
    probes: str, primary: str, of: str
) -> None:
    plan = PLAN.changed(primary_metric=primary, placebo_scale=2**20)
    found = tried(plan, "real_study.py:make_program", nudge=True, probes=probes)
    assert found.nudges[-1].of == of
    assert found.nudges[-1].end > 0
    assert f"a placebo was {of} 0." in _floor(found, plan)


def test_further_times_cost_time_and_disk_and_no_power(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = SimpleNamespace(perf_counter=itertools.count().__next__, process_time=lambda: 0.0)
    monkeypatch.setattr("auditkit.study.worker.preflight.time", ticks)
    further = PLAN.changed(probe_at=[7, 8, 12])
    without, within = (tried(plan).cost.branch_seconds for plan in (PLAN, further))
    assert (without, within) == (2 + 3, 2 + 6)  # a fork, and an evaluation at every time
    whole = replace(PREFLIGHT, cost=replace(PREFLIGHT.cost, outcome_bytes=None))
    plain, more = (estimate_cost(whole, plan, 1) for plan in (PLAN, further))
    table = 4 * PREFLIGHT.cost.n_probe * PREFLIGHT.cost.n_classes
    assert more.seed_bytes - plain.seed_bytes == len(PLAN.branch_names) * 2 * 3 * table
    assert design_of(further) == design_of(PLAN)
    kept = [estimate_cost(PREFLIGHT, plan, 1).seed_bytes for plan in (PLAN, further)]
    assert kept[1] - kept[0] - more.evidence_bytes + plain.evidence_bytes == (
        len(PLAN.branch_names) * 3 * (PREFLIGHT.cost.outcome_bytes or 0)
    )


@pytest.mark.parametrize("optimizer", sorted(FITTING))
def test_of_every_optimizer_what_does_not_fit_is_refused_and_what_fits_is_named(
    optimizer: str, program: Callable[[str], Path]
) -> None:
    kind, more = ("SGD", ", momentum=0.9") if optimizer == "momentum" else (optimizer, "")
    folder = program(
        "def make_program(seed):\n"
        "    p = tiny_study.make_program(seed)\n"
        f"    optimizer = torch.optim.{kind}(p.model.parameters(), lr=0.01{more})\n"
        "    return replace(p, optimizer=optimizer)\n"
    )
    resets = ["momentum-reset", "adam-reset", "second-moment-reset"]
    fitting = FITTING[optimizer]
    for name in resets:
        plan = replace_perturbations(PLAN, [name])
        if name in fitting:
            assert tried(plan, "own.py:make_program", folder).undecided == ()
            continue
        with pytest.raises(PlanError, match="cannot be perturbed as planned") as refused:
            tried(plan, "own.py:make_program", folder)
        text = str(refused.value)
        assert name in text
        assert refused.value.exit_code == 2
        assert all(other in text for other in fitting)


def replace_perturbations(plan: StudyPlan, names: list[str]) -> StudyPlan:
    """The same plan with other perturbations."""
    return plan.changed(perturbations=names)


def test_everything_that_does_not_fit_is_named_at_once(program: Callable[[str], Path]) -> None:
    plan = PLAN.changed(perturbations=["adam-reset", "momentum-reset", "batchnorm-reset"])
    with pytest.raises(PlanError) as refused:
        tried(plan, parts="dropout")
    assert "adam-reset:moments=mv,step=reset: SGD keeps no exp_avg" in refused.value.message
    assert "batchnorm-reset: the model has no BatchNorm" in refused.value.message
    assert "momentum-reset:" not in refused.value.message


def test_an_order_perturbation_of_a_stream_is_refused() -> None:
    with pytest.raises(PlanError, match="order-reverse: an iterable data set has no indices"):
        tried(data="iterable")


def test_an_optimizer_that_steps_late_is_asked_again_later(program: Callable[[str], Path]) -> None:
    late = (
        "def make_program(seed):\n"
        "    p = tiny_study.make_program(seed)\n"
        "    def step(program, batch, t):\n"
        "        if t >= {first}:\n"
        "            return p.train_on(batch, t)\n"
        "    return replace(p, step=step)\n"
    )
    plan = StudyPlan(40, 2, 44, [0], ["momentum-reset"], placebos=1)
    assert tried(plan, "own.py:make_program", program(late.format(first=20))).undecided == ()
    with pytest.raises(PlanError, match="SGD keeps no momentum_buffer at t0"):
        tried(plan, "own.py:make_program", program(late.format(first=41)))
    later = StudyPlan(100, 2, 104, [0], ["momentum-reset"], placebos=1)
    (line,) = tried(later, "own.py:make_program", program(late.format(first=90))).undecided
    assert line.startswith("momentum-reset found nothing to change after 64 steps")


def test_training_goes_on_as_if_nothing_had_been_tried(program: Callable[[str], Path]) -> None:
    folder = program(
        "LOSSES = []\n"
        "def make_program(seed, nothing=''):\n"
        "    p = tiny_study.make_program(seed)\n"
        "    def step(program, batch, t):\n"
        "        loss = p.train_on(batch, t)\n"
        "        print('LOSS', t, float(loss).hex())\n"
        "        return loss\n"
        "    return replace(p, step=step)\n"
    )
    plans = [PLAN, PLAN.changed(perturbations=["carry"])]
    printed = []
    for plan in plans:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            tried(plan, "own.py:make_program", folder)
        printed.append([line for line in out.getvalue().splitlines() if line.startswith("LOSS")])
    assert len(printed[0]) == 6
    assert printed[0] == printed[1]


def test_a_loss_that_recalibration_cannot_call_is_named(program: Callable[[str], Path]) -> None:
    folder = program(
        "def make_program(seed):\n"
        "    p = tiny_study.make_program(seed)\n"
        "    def step(program, batch, t):\n"
        "        loss = tiny_study.cross_entropy(program.model, batch)\n"
        "        program.optimizer.zero_grad(); loss.backward(); program.optimizer.step()\n"
        "    def loss(model, batch): return model(batch['x']).sum()\n"
        "    return replace(p, step=step, loss=loss)\n"
    )
    with pytest.raises(ProgramError) as refused:
        tried(target="own.py:make_program", folder=folder)
    text = str(refused.value)
    assert "own.py:9: BatchNorm cannot be recalibrated: loss(model, batch) raised TypeError" in text
    assert refused.value.exit_code == 2


def test_a_factory_that_makes_something_else_when_called_again_is_refused(
    program: Callable[[str], Path],
) -> None:
    folder = program(
        "CALLS = []\n"
        "def make_program(seed):\n"
        "    CALLS.append(seed)\n"
        "    p = tiny_study.make_program(seed)\n"
        "    p.optimizer.param_groups[0]['lr'] *= len(CALLS)\n"
        "    return p\n"
    )
    with pytest.raises(UncapturedState, match="does not make the same when it is called again"):
        tried(target="own.py:make_program", folder=folder)


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ("p.model.first.bias.data.fill_(IMPORTS)", "params"),
        ("p.optimizer.param_groups[0]['lr'] += IMPORTS", "param_groups, hyper-parameters"),
        ("p.probe.inputs[0] = IMPORTS", "probe inputs"),
        ("p = tiny_study.make_program(seed, parts='dropout' * IMPORTS)", "modules"),
    ],
)
def test_a_factory_that_makes_something_else_in_another_process_is_refused(
    change: str, names: str, program: Callable[[str], Path]
) -> None:
    folder = program(
        "from pathlib import Path\n"
        "COUNTED = Path(__file__).with_suffix('.txt')\n"
        "COUNTED.touch()\n"
        "IMPORTS = len(COUNTED.read_text())\n"
        "COUNTED.write_text('x' * (IMPORTS + 1))\n"
        "def make_program(seed):\n"
        "    p = tiny_study.make_program(seed)\n"
        f"    {change}\n"
        "    return p\n"
    )
    with pytest.raises(UncapturedState) as refused:
        tried(PLAN.changed(perturbations=["carry"]), "own.py:make_program", folder)
    assert refused.value.message.startswith(
        f"the factory does not make the same in every process: {names}"
    )


def test_what_ends_before_the_horizon_is_refused(program: Callable[[str], Path]) -> None:
    folder = program(
        "def make_program(seed):\n"
        "    p = tiny_study.make_program(seed)\n"
        "    schedule = torch.optim.lr_scheduler.OneCycleLR(p.optimizer, 0.1, total_steps=10)\n"
        "    return replace(p, scheduler=schedule)\n"
        "class Once(torch.utils.data.IterableDataset):\n"
        "    def __init__(self, points): self.left = map(points.__getitem__, range(len(points)))\n"
        "    def __iter__(self): return self.left\n"
        "def make_stream(seed):\n"
        "    p = tiny_study.make_program(seed)\n"
        "    loader = torch.utils.data.DataLoader(Once(p.loader.dataset), batch_size=4)\n"
        "    return replace(p, loader=loader)\n"
    )
    with pytest.raises(PlanError, match="at step 11 of 14, raised ValueError: Tried to step 11"):
        tried(target="own.py:make_program", folder=folder, nudge=True)
    short = PLAN.changed(fork_at=2, window=1, perturbations=["carry"])
    with pytest.raises(ProgramError, match="the data loader yields 4 batches and then none"):
        tried(short, "own.py:make_stream", folder, steps=1)


def test_a_perturbation_of_a_plug_in_that_fails_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("no such slot")

    monkeypatch.setattr("auditkit.perturbations.optimizer_resets.MomentumReset.apply", fail)
    with pytest.raises(PlanError, match="momentum-reset: applying momentum-reset raised KeyError"):
        tried(PLAN.changed(perturbations=["momentum-reset"]))
    monkeypatch.setattr(
        "auditkit.perturbations.ulp.Ulp.apply",
        lambda *_: (_ for _ in ()).throw(NothingToPerturb("no weight is finite")),
    )
    with pytest.raises(PlanError, match="a placebo: no weight is finite"):
        tried(PLAN.changed(perturbations=["carry"]))


@pytest.mark.filterwarnings("default")
def test_what_the_program_warns_of_is_passed_on_once(program: Callable[[str], Path]) -> None:
    folder = program(
        "from torch.nn import functional as F\n"
        "def make_program(seed):\n"
        "    p = tiny_study.make_program(seed)\n"
        "    def loss(model, batch):\n"
        "        out = model(batch[0])\n"
        "        return F.mse_loss(out[:, :1], batch[1].float())\n"
        "    return replace(p, loss=loss)\n"
    )
    (line,) = tried(target="own.py:make_program", folder=folder).notes
    assert line.startswith("the program warned at own.py:9: UserWarning: Using a target size (")
    assert len(line) < 500
    assert tried().notes == ()


# A placebo whose size is chosen


def test_the_smallest_scale_that_grows_is_chosen_and_recorded() -> None:
    plan = PLAN.changed(placebo_scale="auto", perturbations=["carry"])
    found = tried(plan)
    scales = [trial.scale for trial in found.nudges]
    assert scales == [16**exponent for exponent in range(len(scales))]
    assert all(trial.end <= 1e-3 for trial in found.nudges[:-1])
    assert found.nudges[-1].end > 1e-3
    assert settled(plan, found).placebo_scale == scales[-1]
    assert settled(PLAN, found) == PLAN


@pytest.mark.parametrize("fork_at", [2, 6, (6, 9), 40])
def test_a_dry_run_and_a_run_try_the_same_placebos_where_branches_begin(
    fork_at: int | tuple[int, ...],
) -> None:
    last = fork_at if isinstance(fork_at, int) else fork_at[-1]
    plan = StudyPlan(fork_at, 3, last + 5, [0], ["carry"], placebos=2, placebo_scale="auto")
    run, dry = tried(plan, steps=FEW_STEPS), tried(plan, steps=MANY_STEPS, nudge=True)
    assert run.nudges == dry.nudges
    assert {(trial.began, trial.steps) for trial in run.nudges} == {(last, 5)}
    assert settled(plan, run) == settled(plan, dry)


def test_a_trial_looks_at_the_probe_of_the_primary_metric(program: Callable[[str], Path]) -> None:
    folder = program(
        "def make_program(seed):\n"
        "    p = tiny_study.make_program(seed)\n"
        "    def predict(model, x): return torch.eye(3)[x.long()[:, 0] % 3]\n"
        "    still = ak.Probe(p.probe.inputs, predict=predict)\n"
        "    return replace(p, probe=None, probes={'still': still, 'moving': p.probe})\n"
    )
    plan = PLAN.changed(placebo_scale=2**20, perturbations=["carry"])
    ends = [
        tried(plan.changed(primary_metric=f"{probe}/tv"), "own.py:make_program", folder, nudge=True)
        for probe in ("still", "moving")
    ]
    still, moving = (found.nudges[-1].end for found in ends)
    assert still == 0 < moving


def test_where_training_contracts_it_is_said() -> None:
    shrinking = replace(PREFLIGHT, nudges=(replace(NUDGE, steps=5, halfway=0.9, end=0.5),))
    text = _floor(shrinking, PLAN)
    assert "after 5 steps of 8" in text
    assert text.endswith("it shrinks (half of the trial: 0.9): training contracts")
    assert "training contracts" not in _floor(PREFLIGHT, PLAN)


def test_what_forks_cannot_share_is_paid_by_every_branch() -> None:
    cost = replace(PREFLIGHT.cost, alone=(), imports_alone=False)
    forked = replace(PREFLIGHT, cost=cost)
    built = replace(PREFLIGHT, cost=replace(cost, alone=("2 threads",)))
    imported = replace(built, cost=replace(built.cost, imports_alone=True))
    seconds = [
        estimate_cost(each, PLAN, 2).seconds - estimate_cost(each, PLAN, 1).seconds
        for each in (forked, built, imported, replace(forked, opened=None))
    ]
    more = [round(each - seconds[0], 6) for each in seconds[1:]]
    n_branches = len(PLAN.branch_names)  # of forks, trunk and branches call the factory once each
    calls, starts = (n_branches - 2) * cost.build_seconds, n_branches * cost.start_seconds
    assert more == [calls, calls + starts, calls + starts]
    assert estimate_cost(forked, PLAN, 1).seconds > 3 * cost.start_seconds


def test_why_branches_are_no_forks_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    forked = replace(PREFLIGHT, cost=replace(PREFLIGHT.cost, alone=(), imports_alone=False))
    print_dry_run(console(), forked, PLAN, 2)
    assert "by itself" not in capsys.readouterr().out
    print_dry_run(console(), PREFLIGHT, PLAN, 2)
    assert (
        "every branch imports the program by itself (2.5 s each), since forks would share or lack "
        "2 threads"
    ) in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("at_import", [(), ("2 threads",)])
def test_a_preflight_asks_after_the_imports_and_after_the_factory(
    monkeypatch: pytest.MonkeyPatch, at_import: tuple[str, ...]
) -> None:
    after = (*at_import, "the open /steps.csv")
    answers = iter([at_import, after])
    monkeypatch.setattr("auditkit.study.worker.jobs.unshared", lambda _: next(answers))
    cost = tried().cost
    assert (cost.alone, cost.imports_alone) == (after, bool(at_import))


def test_a_run_and_its_dry_run_estimate_the_same_time(capsys: pytest.CaptureFixture[str]) -> None:
    source = ProgramSource(TINY, str(PROGRAMS), {})
    request = StudyRequest(source, PLAN, Path("out"), jobs=2, preflight=PREFLIGHT)
    print_dry_run(console(), PREFLIGHT, PLAN, 2)
    print_outlook(console(), request)
    dry, run = capsys.readouterr().out.split("`auditkit explain WORD`")
    (wall,) = re.findall(r"wall time +(.*) with --jobs 2", dry)
    assert f"about {wall} with --jobs 2, process starts included" in " ".join(run.split())


def test_a_run_that_goes_on_estimates_what_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = PLAN.changed(seeds=[0, 1])
    source = ProgramSource(TINY, str(PROGRAMS), {})
    cost = replace(PREFLIGHT.cost, step_seconds=100.0)
    found = replace(PREFLIGHT, cost=cost)
    request = StudyRequest(source, plan, tmp_path, jobs=1, resume=True, preflight=found)

    def told() -> str:
        print_outlook(console(), request)
        return " ".join(capsys.readouterr().out.split())

    whole = re.findall(r"training steps, (about .*) with --jobs 1", told())[0]
    (tmp_path / "seed-0000").mkdir()
    for name in ("trunk", *plan.branch_names[1:]):
        (tmp_path / "seed-0000" / f"{name}.json.partial").touch()
    left = told()
    assert f"of which {plan.seed_steps:,} are left, about " in left
    assert f"and {whole} to verify" in left
    assert f"left, {whole}" not in left


@pytest.mark.parametrize(
    ("n_seeds", "jobs", "at_once", "share"),
    [
        (1, 1, True, 1.0),
        (4, 2, True, 1 / 2),
        (4, 2, False, 1 / 2),
        (4, 3, False, 2 / 4),  # a second round
        (1, 8, False, 1.0),
        (1, 8, True, (14 + 2 * 8) / PLAN.seed_steps),  # trunk, one branch, replica
    ],
)
def test_wall_time_is_that_of_what_can_be_at_work_at_once(
    n_seeds: int, jobs: int, at_once: bool, share: float
) -> None:
    assert wall_seconds(60.0, PLAN, n_seeds, jobs, at_once=at_once) == pytest.approx(60 * share)


def test_branches_of_a_script_or_on_an_engine_are_not_at_work_at_once() -> None:
    request = StudyRequest(ProgramSource(TINY, str(PROGRAMS), {}), PLAN, Path("out"))
    assert request.branches_at_once
    assert not replace(request, command=("python", "train.py")).branches_at_once
    assert not replace(request, engine=EngineSpec("dask", None)).branches_at_once


def test_where_nothing_can_be_tried_a_number_is_asked_for() -> None:
    plan = PLAN.changed(placebo_scale="auto")
    with pytest.raises(PlanError, match="placebo_scale='auto', and no nudge can be tried"):
        settled(plan, replace(PREFLIGHT, nudges=()))
    largest = [replace(NUDGE, scale=scale, end=1e-9) for scale in (1, 16, 256)]
    chosen = settled(plan, replace(PREFLIGHT, nudges=tuple(largest)))
    assert chosen.placebo_scale == 256
