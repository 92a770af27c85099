"""Every planted source is caught, named and placed; honest programs give no alarm."""

from __future__ import annotations

from pathlib import Path

import pytest
from drift_table import NAMES, rows, share
from examining import ANY, FEW, Said, examine, run_program, said_of
from planted import EXIT_CODES, HONEST, PLANTED, Planted
from studies import check

from auditkit.errors import UncapturedState
from auditkit.processes.worker_pool import Workers
from auditkit.signing.keys import PrivateKey

#: Where nothing is drawn by chance, two replays agree as four do.
REPLAYS = 2


@pytest.mark.parametrize("planted", PLANTED, ids=str)
def test_a_source_is_named_with_class_step_component_and_module(
    planted: Planted, tmp_path: Path, key: PrivateKey
) -> None:
    replays = None if planted.kind == "nondeterminism" else REPLAYS
    said = examine(planted, tmp_path, key, replays=replays)
    assert (said.kind, said.exit_code) == (planted.kind, EXIT_CODES[planted.kind]), said.text
    assert said.place_is_right(planted), said.text
    assert said.module_is_right(planted), said.text


@pytest.mark.parametrize(("factory", "arguments"), HONEST, ids=str)
def test_an_honest_program_gives_no_alarm(
    factory: str, arguments: dict[str, str], tmp_path: Path, key: PrivateKey
) -> None:
    run = run_program(tmp_path, key, f"honest_study.py:{factory}", arguments, ANY)
    report = check(run)
    assert report.verdict == "verified", said_of(report).text


@pytest.mark.parametrize("factory", ["counter_of_programs", "cache_of_draws"])
def test_what_one_branch_leaves_behind_reaches_no_other(
    factory: str, tmp_path: Path, key: PrivateKey
) -> None:
    report = check(run_program(tmp_path, key, f"unsteady_study.py:{factory}", {}, FEW))
    assert report.verdict == "verified", said_of(report).text


@pytest.fixture
def fresh_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let studies run in processes of their own."""
    monkeypatch.setattr("studies.InProcessWorkers", Workers)
    monkeypatch.setenv("PYTHONHASHSEED", "random")  # as it is where nobody sets it


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_processes")
@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("unsteady_study.py:order_of_addresses", "nondeterminism"),
        ("honest_study.py:order_of_a_set", "none"),
    ],
)
def test_what_only_fresh_processes_have(
    target: str, kind: str, tmp_path: Path, key: PrivateKey
) -> None:
    run = run_program(tmp_path, key, target, {}, FEW)
    said = said_of(check(run, fresh=True))
    assert said.kind == kind, said.text


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_processes")
def test_weights_that_are_other_ones_in_every_process_are_refused_before_training(
    tmp_path: Path, key: PrivateKey
) -> None:
    with pytest.raises(UncapturedState, match="not make the same in every process: params"):
        run_program(tmp_path, key, "unsteady_study.py:process_initialisation", {}, FEW)


def test_the_table_counts_what_is_right_and_what_is_not() -> None:
    caught, missed = PLANTED[1], PLANTED[2]
    right = Said(caught.kind, caught.step, caught.component, caught.module, 1)
    lines = list(rows([(caught, right), (missed, Said("none"))]))
    half = "1/2 (0.01 to 0.99)"
    assert lines[2] == f"| nondeterminism, replays disagree | {' | '.join([half] * 5)} |"
    assert lines[3] == "| record of something else, exit 1 | - | - | - | - | - |"
    assert lines[-1] == f"| all | {' | '.join([half] * 5)} |"


def test_the_corpus_is_as_large_as_it_is_said_to_be() -> None:
    assert len({planted.name for planted in PLANTED}) == len(PLANTED) >= 24
    assert len(HONEST) >= 12


def test_the_manual_tells_how_many_were_planted() -> None:
    page = (Path(__file__).parents[2] / "auditkit/manual/limits.md").read_text(encoding="utf-8")
    for kind, name in NAMES.items():
        n = sum(planted.kind == kind for planted in PLANTED)
        assert f"| {name} | {share([True] * n)} | {n}/{n} |" in page
    assert f"0 of {len(HONEST)} honest programs" in page
