"""dask itself: a scheduler with two workers, which are started once for all of these tests."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_shell import PATIENCE

from auditkit.engines.order import Order
from auditkit.engines.spec import EngineSpec, Ticket
from auditkit.errors import ConnectionLost
from auditkit.formats import canonical
from auditkit.records.job import Job, ProgramSource

pytest.importorskip("distributed", reason='needs pip install "auditkit[dask]"')
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    from distributed.deploy.subprocess import SubprocessCluster  # needs dask

    with SubprocessCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        engine = EngineSpec("dask", cluster.scheduler_address).connect(2)
        yield engine
        engine.close()


def answer_of(ticket: Ticket) -> dict[str, Any]:
    end = time.monotonic() + PATIENCE
    while (text := ticket.answer()) is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    told: dict[str, Any] = json.loads(text)
    return told


def order_of(folder: Path) -> str:
    job = Job("describe", ProgramSource("tiny_study.py:make_program", str(folder), {}), None, 0, "")
    return canonical.encode(Order(job, None, {}, None, None)).decode()


def test_what_goes_there_and_comes_back_is_json(engine: Any, tmp_path: Path) -> None:
    tickets = [engine.submit(order_of(tmp_path / "nowhere"), "auditkit-test", 1) for _ in "ab"]
    for error in (answer_of(ticket)["error"] for ticket in tickets):
        assert error["kind"] == "StoreError"
        assert "does not see the program" in error["message"]


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("auditkit.engines.dask_engine._CONNECT", 0.5)
    with pytest.raises(ConnectionLost, match="no scheduler of dask answers") as caught:
        EngineSpec("dask", "tcp://127.0.0.1:9").connect(1)
    assert caught.value.where == "tcp://127.0.0.1:9"
    with pytest.raises(ConnectionLost, match="no scheduler of dask answers"):
        EngineSpec("dask", "no address at all").connect(1)
