"""Jobs by dask.distributed: its scheduler, its retries, its dashboard."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from typing import Any

from distributed import Client, LocalCluster
from distributed.scheduler import KilledWorker

from auditkit.engines.lost import died, gone, unreachable
from auditkit.engines.remote_job import WorkerDied, do

#: How often a job whose process was killed is tried again; how often one whose worker died, is
#: dask's own setting, ``distributed.scheduler.allowed-failures``.
_RETRIES = 2

#: Seconds to connect in, and after which a scheduler that is silent counts as gone.
_CONNECT, _GONE = 15.0, 30.0

_RUNNING = ("running", "newly-created", "connecting")


def connect(address: str | None, jobs: int) -> DaskEngine:
    """Connect to a scheduler, or start one with as many workers as jobs.

    Raises:
        ConnectionLost: When there is none.
    """
    quiet, cluster = _Quiet(), None
    try:
        if address is None:
            cluster = LocalCluster(
                n_workers=jobs,
                threads_per_worker=1,
                processes=False,  # jobs have their own, which share one that is prepared
                dashboard_address=":0",
                silence_logs=logging.CRITICAL,
                memory_limit=0,  # what a job may take is not dask's to say
            )
        client = Client(
            cluster if address is None else address, timeout=_CONNECT, set_as_default=False
        )
    except (OSError, ValueError, TimeoutError, RuntimeError, asyncio.CancelledError) as error:
        if cluster is not None:
            cluster.close()
        quiet.end()
        raise unreachable("dask", address, error) from error
    return DaskEngine(client, cluster, address, quiet)


class _Quiet:
    """Nothing is logged by dask, whose every message stands on stderr: errors say what matters."""

    def __init__(self) -> None:
        known = (name for name in logging.root.manager.loggerDict if name.startswith("distributed"))
        self._levels = {name: logging.getLogger(name).level for name in (*known, "asyncio")}
        for name in self._levels:
            logging.getLogger(name).setLevel(logging.CRITICAL)

    def end(self) -> None:
        """Have everything as it was."""
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)


class DaskEngine:
    """A client of a scheduler.

    Args:
        client: The client.
        cluster: What was started for it.
        address: The scheduler's, as it was given.
        quiet: Ends with it.
    """

    def __init__(self, client: Any, cluster: Any, address: str | None, quiet: _Quiet) -> None:
        self._client, self._cluster, self.address = client, cluster, address
        self._quiet = quiet
        self._silent_since: float | None = None

    def submit(self, order: str, name: str, threads: int) -> DaskTicket:
        """As :meth:`auditkit.engines.spec.Engine.submit`."""
        self.require_running(at_once=True)
        future = self._client.submit(
            do, order, key=f"{name}-{secrets.token_hex(8)}", pure=False, retries=_RETRIES
        )
        return DaskTicket(self, future)

    def require_running(self, *, at_once: bool = False) -> None:
        """Require a scheduler that answers.

        Raises:
            ConnectionLost: When it has been gone for long.
        """
        if self._client.status == "running":
            self._silent_since = None
            return
        self._silent_since = self._silent_since or time.monotonic()
        is_over = self._client.status not in _RUNNING
        if at_once or is_over or time.monotonic() - self._silent_since > _GONE:
            raise gone("dask", self.address)

    def close(self) -> None:
        """As :meth:`auditkit.engines.spec.Engine.close`."""
        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            self._client.close(timeout=5)
        if self._cluster is not None:
            with contextlib.suppress(OSError, TimeoutError, RuntimeError):
                self._cluster.close(timeout=10)
        self._quiet.end()


class DaskTicket:
    """A job that dask was given."""

    def __init__(self, engine: DaskEngine, future: Any) -> None:
        self._engine, self._future = engine, future

    def answer(self) -> str | None:
        """As :meth:`auditkit.engines.spec.Ticket.answer`."""
        self._engine.require_running()
        status = self._future.status
        if status == "pending":
            return None
        if status in ("lost", "cancelled"):
            raise gone("dask", self._engine.address)
        try:
            return str(self._future.result(timeout=_GONE))
        except WorkerDied as error:
            raise died(str(error)) from error
        except (KilledWorker, OSError, TimeoutError) as error:
            raise gone("dask", self._engine.address, error) from error

    def cancel(self) -> None:
        """As :meth:`auditkit.engines.spec.Ticket.cancel`."""
        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            self._future.cancel()
