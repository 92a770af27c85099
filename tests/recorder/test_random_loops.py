"""Loops drawn at random are killed and resumed: the same weights, or a refusal; never silence."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import random_loops
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from random_loops import LoopPlan

Judge = Callable[..., tuple[str, str]]

DRIVER = Path(random_loops.__file__).with_name("random_loop_driver.py")

#: Nothing is shrunk: an example takes its time, and a plan is short as it is.
SETTINGS = settings(
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
EVERY = st.integers(1, 7)
#: The simplest example of all is the first that is drawn: it is killed where something follows.
KILL = st.sampled_from([8, *range(1, 13)])
KILL_AMIDST = st.sampled_from([8, 4, 5, 6, 7, 9, 10])


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """Runs a loop bare, recorded, killed and resumed; the verdict, and why."""
    home = tmp_path_factory.mktemp("home")
    with subprocess.Popen(
        [sys.executable, str(DRIVER)],
        env={**os.environ, "XDG_CONFIG_HOME": str(home)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as driver:

        def ask(plan: LoopPlan, every: int, kill: int, again: int = 0) -> tuple[str, str]:
            assert driver.stdin is not None
            assert driver.stdout is not None
            asked = {"plan": dataclasses.asdict(plan), "every": every, "kill": kill, "again": again}
            driver.stdin.write(f"{json.dumps(asked)}\n")
            driver.stdin.flush()
            verdict, why = json.loads(driver.stdout.readline())
            return verdict, why

        yield ask
        driver.kill()


SILENT = ("silently wrong", "crashed", "recording changed it")


@seed(1)
@settings(SETTINGS, max_examples=36)
@given(plan=random_loops.plans(None), every=EVERY, kill=KILL)
def test_an_honest_loop_resumes_to_the_same_weights(
    judge: Judge, plan: LoopPlan, every: int, kill: int
) -> None:
    verdict, why = judge(plan, every, kill)
    assert verdict in ("right", "was done before"), (verdict, why)
    warned = [line for line in why.splitlines() if line.startswith("RecordingStopped")]
    assert all("the loop begins anew" in line for line in warned), why  # killed too soon


@pytest.mark.parametrize("flaw", random_loops.FLAWS)
def test_no_flawed_loop_resumes_to_other_weights_in_silence(judge: Judge, flaw: str) -> None:
    @seed(zlib.crc32(flaw.encode()))
    @settings(SETTINGS, max_examples=4)
    @given(random_loops.plans(flaw), EVERY, KILL_AMIDST)
    def sample(plan: LoopPlan, every: int, kill: int) -> None:
        verdict, why = judge(plan, every, kill)
        assert verdict not in SILENT, (verdict, why)

    sample()


@pytest.mark.slow
@pytest.mark.parametrize("flaw", [None, *random_loops.FLAWS])
def test_two_thousand_loops(judge: Judge, flaw: str | None) -> None:
    """Prints the table of the manual."""
    verdicts: Counter[str] = Counter()
    wrong: list[Any] = []

    @seed(zlib.crc32(str(flaw).encode()) + 1)
    @settings(SETTINGS, max_examples=400 if flaw is None else 100)
    @given(random_loops.plans(flaw), EVERY, KILL, st.sampled_from([0, 0, 0, 3, 9]))
    def sample(plan: LoopPlan, every: int, kill: int, again: int) -> None:
        verdict, why = judge(plan, every, kill, again)
        verdicts[verdict] += 1
        if verdict in SILENT or (flaw is None and verdict == "refused"):
            wrong.append((plan, every, kill, again, verdict, why))

    sample()
    print(flaw, dict(verdicts))
    assert not wrong
