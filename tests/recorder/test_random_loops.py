"""Loops drawn at random are killed and resumed: the same weights, or a refusal; never silence."""

from __future__ import annotations

import hashlib
import os
import random
import re
import traceback
import warnings
import zlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import random_loops
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from random_loops import LoopPlan, NoRecorder

import auditkit as ak

#: Nothing is shrunk: an example takes its time, and a plan is short as it is.
SETTINGS = settings(
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
EVERY, KILL = st.integers(1, 7), st.integers(1, 12)


@dataclass(frozen=True)
class Ended:
    """How a process that ran a loop ended.

    Attributes:
        weights: Digest of the final weights; None where it did not get there.
        error: Name and text of what was raised, or None.
        warned: What was warned of.
    """

    weights: str | None
    error: str | None
    warned: str


def run(plan: LoopPlan, folder: Path, how: str, every: int = 0, kill: int = 0) -> Ended:
    """Run a loop in a fork of this process.

    Args:
        plan: The loop.
        folder: For the recording.
        how: ``bare``, ``recorded`` or ``resumed``.
        every: Steps between checkpoints.
        kill: At which of its own steps the process is killed; 0 for none.
    """
    told = folder.with_suffix(f".{how}{kill}")
    pid = os.fork()
    if not pid:
        try:
            told.write_text(_run_here(plan, folder, how, every, kill))
        except BaseException:
            told.write_text(f"ERROR {traceback.format_exc()}")
        os._exit(0)
    os.waitpid(pid, 0)
    text = told.read_text() if told.exists() else ""
    final = re.match(r"FINAL (\w+)\n", text)
    error = re.findall(r"^([\w.]+(?:Error|Exception|\w+): .*)", text, re.M)
    failed = text.startswith("ERROR")
    return Ended(final[1] if final else None, error[-1] if failed and error else None, text)


@pytest.fixture(scope="module", autouse=True)
def _imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What this process has imported and looked up, its forks need not."""
    plan = LoopPlan("adam", "epoch", "shuffle", "torch", 0, 1, 2, 0, True, "plain", True, None)
    _run_here(plan, tmp_path_factory.mktemp("imported") / "out", "recorded", 0, 0)


def _run_here(plan: LoopPlan, folder: Path, how: str, every: int, kill: int) -> str:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if done == kill:
            os._exit(9)

    rec: Any = NoRecorder()
    if how == "recorded":
        rec = ak.Recorder(folder)
    elif how == "resumed":
        rec = ak.Recorder.resume(folder, checkpoint_every=every)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = random_loops.train(plan, rec, tick)
        if how != "bare":
            rec.close()
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.detach().numpy().tobytes())
    said = "\n".join(f"{w.category.__name__}: {w.message}" for w in caught)
    return f"FINAL {digest.hexdigest()[:16]}\n{said}"


def judge(plan: LoopPlan, every: int, kill: int, resumed_kill: int = 0) -> tuple[str, str]:
    """Run a loop bare, recorded, killed and resumed; the verdict, and why."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        bare = run(plan, folder / "bare", "bare")
        recorded = run(plan, folder / "recorded", "recorded")
        assert bare.weights is not None, bare
        if recorded.weights != bare.weights:
            refused = recorded.error is not None and "auditkit.errors" in recorded.error
            return ("refused at wrap" if refused else "recording changed it"), str(recorded)
        run(plan, folder / "resumed", "resumed", every, kill)
        if resumed_kill:
            run(plan, folder / "resumed", "resumed", every, resumed_kill)
        if (folder / "resumed" / "manifest.json").exists():
            return "was done before", ""
        resumed = run(plan, folder / "resumed", "resumed", every)
    if resumed.weights == bare.weights:
        return "right", resumed.warned
    if resumed.weights is None and resumed.error and "auditkit.errors" in resumed.error:
        return "refused", resumed.error
    if resumed.weights is None:
        return "crashed", resumed.warned
    return "silently wrong", resumed.warned


SILENT = ("silently wrong", "crashed", "recording changed it")


@seed(1)
@settings(SETTINGS, max_examples=36)
@given(random_loops.plans(None), EVERY, KILL)
def test_an_honest_loop_resumes_to_the_same_weights(plan: LoopPlan, every: int, kill: int) -> None:
    verdict, why = judge(plan, every, kill)
    assert verdict in ("right", "was done before"), (verdict, why)
    assert "RecordingStopped" not in why, why


@pytest.mark.parametrize("flaw", random_loops.FLAWS)
def test_no_flawed_loop_resumes_to_other_weights_in_silence(flaw: str) -> None:
    @seed(zlib.crc32(flaw.encode()))
    @settings(SETTINGS, max_examples=4)
    @given(random_loops.plans(flaw), EVERY, KILL)
    def sample(plan: LoopPlan, every: int, kill: int) -> None:
        verdict, why = judge(plan, every, kill)
        assert verdict not in SILENT, (verdict, why)

    sample()


@pytest.mark.slow
@pytest.mark.parametrize("flaw", [None, *random_loops.FLAWS])
def test_two_thousand_loops(flaw: str | None) -> None:
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
