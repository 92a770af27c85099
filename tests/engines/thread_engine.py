"""An engine whose workers are threads of the test's own process, and which can lose them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from auditkit.engines.remote_job import WorkerDied, do
from auditkit.engines.spec import EngineSpec
from auditkit.errors import ConnectionLost

Do = Callable[[str], str]


class ThreadEngine(EngineSpec):
    """Stands in for the way to an engine, and for the engine.

    Args:
        work: What is done with an order in place of :func:`do`, which tries ``attempts`` times.
        attempts: As that.
        address: Of an engine that was there before.
    """

    def __init__(self, work: Do = do, attempts: int = 1, address: str | None = None) -> None:
        super().__init__("dask", address)
        object.__setattr__(self, "work", work)
        object.__setattr__(self, "attempts", attempts)
        object.__setattr__(self, "orders", [])
        object.__setattr__(self, "pool", ThreadPoolExecutor(max_workers=2))

    work: Do
    attempts: int
    orders: list[str]
    pool: ThreadPoolExecutor

    def require_installed(self) -> None:
        pass

    def connect(self, jobs: int) -> ThreadEngine:
        return self

    def submit(self, order: str, name: str, threads: int) -> ThreadTicket:
        self.orders.append(order)
        return ThreadTicket(self.pool.submit(self._try, order))

    def close(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)

    def _try(self, order: str) -> str:
        for _ in range(self.attempts - 1):
            with suppress(WorkerDied):
                return self.work(order)
        return self.work(order)


class ThreadTicket:
    """A job that a thread does."""

    def __init__(self, future: Future[str]) -> None:
        self._future = future

    def answer(self) -> str | None:
        if self._future.cancelled():
            raise ConnectionLost("the scheduler is gone")
        return self._future.result() if self._future.done() else None

    def cancel(self) -> None:
        self._future.cancel()
