"""Jobs by ray: its scheduler, its retries, its dashboard."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import RayError, RayTaskError

from auditkit.engines.lost import ABANDONED, died, gone, unreachable
from auditkit.engines.remote_job import WorkerDied, do
from auditkit.errors import UsageError

#: How often a job is tried again whose worker died, or whose process was killed there.
_RETRIES = 3

#: Seconds to connect in; between two looks whether the scheduler is there, and after which it
#: counts as gone. Ray itself ends the process without a word of ours after a minute.
_CONNECT, _LOOKS, _GONE = 15.0, 2.0, 10.0

#: Ray itself says so of a cluster on this machine only, and nothing where it is refused.
_REFUSED = " and where its cluster asks for a token: is RAY_AUTH_MODE=token set here?"

#: No system's ``struct sigaction`` is larger; what is in it is not looked at.
_SIGACTION_BYTES = 1024


def connect(address: str | None, jobs: int) -> RayEngine:
    """Connect to a cluster, or start a node of this machine.

    Raises:
        ConnectionLost: When there is none.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a study tells nobody that it runs
    started: dict[str, Any] = {}
    if address is None:
        # One core is one process of ray's, which is all that is needed here: see _start_worker.
        started = {"num_cpus": 1, "include_dashboard": False}
        # Neither of ray's autoscalers has anything to do here; the default one ends a second later.
        os.environ.setdefault("RAY_enable_autoscaler_v2", "1")
    if ray.is_initialized():
        return RayEngine(address, is_ours=False)
    hint = ""
    try:
        _require_somebody(address)
        hint = _REFUSED
        with _own_end():
            ray.init(
                address=address or "local",
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                **started,
            )
    except Exception as error:  # ray raises that very class where a node does not come up
        raise unreachable("ray", address, error, hint) from error
    return RayEngine(address, is_ours=True, worker=None if address else _start_worker(jobs))


@contextlib.contextmanager
def _own_end() -> Iterator[None]:
    """Keep what this process does at SIGTERM, in the place of which ray puts its own end.

    Ray sets it in Python from the first thread, and below Python from any: the latter is what a
    handler of Python's is not told of, nor can be set again by it from another thread.
    """
    before = signal.getsignal(signal.SIGTERM)
    sigaction = getattr(ctypes.CDLL(None), "sigaction", None) if os.name == "posix" else None
    kept = ctypes.create_string_buffer(_SIGACTION_BYTES)
    if sigaction is not None:
        sigaction(int(signal.SIGTERM), None, kept)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
        if sigaction is not None:
            sigaction(int(signal.SIGTERM), kept, None)


def _require_somebody(address: str | None, seconds: float = _CONNECT) -> None:
    """Require that a port is open, for which ray itself would wait for many minutes.

    Raises:
        OSError: When it is not.
        ValueError: When the address has none.
    """
    if address in (None, "auto", "local"):
        return
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname is None or place.port is None:
        raise ValueError("an address is HOST:PORT, ray://HOST:PORT or auto")
    socket.create_connection((place.hostname, place.port), timeout=seconds).close()


class _Worker:
    """Does jobs in threads of one process of ray's.

    Every process that does jobs prepares one of its own that job processes are forked from, which
    takes seconds: on one machine all share one.
    """

    def do(self, order: str) -> str:
        """Do a job."""
        return do(order)


def _start_worker(jobs: int) -> Any:
    """Start the worker of this machine, which does so many jobs at a time."""
    settings = {"max_concurrency": jobs, "max_restarts": _RETRIES, "max_task_retries": _RETRIES}
    return ray.remote(**settings)(_Worker).remote()


class RayEngine:
    """This process as a driver.

    Args:
        address: Of the cluster, as it was given.
        is_ours: Whether the connection was made for this, and is closed after it.
        worker: Does all jobs; None where every job goes to a node that has the cores for it.
    """

    def __init__(self, address: str | None, *, is_ours: bool, worker: Any = None) -> None:
        self.address, self._is_ours, self._worker = address, is_ours, worker
        self._function = ray.remote(do)
        self.is_shared = worker is not None
        is_client = (address or "").startswith("ray://")
        self._place = address if is_client else ray.get_runtime_context().gcs_address
        self._looked, self._silent_since = time.monotonic(), math.inf
        self.is_gone = False

    def submit(self, order: str, name: str, threads: int) -> RayTicket:
        """As :meth:`auditkit.engines.spec.Engine.submit`."""
        self.require_running()
        try:
            return RayTicket(self, self._call(name, threads).remote(order))
        except (RayError, OSError, RuntimeError) as error:
            raise gone("ray", self.address) from error

    def _call(self, name: str, threads: int) -> Any:
        settings: dict[str, Any] = {"name": name, "retry_exceptions": [WorkerDied]}
        if self._worker is not None:
            return self._worker.do.options(**settings)
        cores = 1 if self.address is None else threads  # here, who started it said how many jobs
        self._require_cores(cores)
        return self._function.options(num_cpus=cores, max_retries=_RETRIES, **settings)

    def _require_cores(self, cores: int) -> None:
        """Require a node that is large enough: ray itself would wait for one.

        Raises:
            UsageError: When all are too small.
        """
        nodes = (node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        most = max(nodes, default=0)
        if 0 < most < cores:
            raise UsageError(
                f"a job of this plan uses {cores} cores, and no node of ray has more than {most:g}",
                hint="fewer threads in the plan, or larger nodes",
            )

    def require_running(self) -> None:
        """Require a scheduler that answers.

        Raises:
            ConnectionLost: When it has been gone for long.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOKS and not self.is_gone:
            self._looked = now
            try:
                _require_somebody(self._place, _LOOKS)
                self._silent_since = math.inf
            except (OSError, ValueError):
                self._silent_since = min(self._silent_since, now)
                self.is_gone = now - self._silent_since > _GONE
        if self.is_gone:
            raise gone("ray", self.address)

    def close(self) -> None:
        """As :meth:`auditkit.engines.spec.Engine.close`."""
        if self.is_gone:  # a farewell would wait for an answer until the process is ended
            atexit.unregister(ray.shutdown)
            ABANDONED.append("ray")
        elif self._is_ours:
            with contextlib.suppress(RayError, OSError, RuntimeError):
                ray.shutdown()


class RayTicket:
    """A job that ray was given."""

    def __init__(self, engine: RayEngine, reference: Any) -> None:
        self._engine, self._reference = engine, reference

    def answer(self) -> str | None:
        """As :meth:`auditkit.engines.spec.Ticket.answer`."""
        self._engine.require_running()
        try:
            done, _ = ray.wait([self._reference], timeout=0)
            return str(ray.get(self._reference)) if done else None
        except RayTaskError as error:
            if isinstance(error.cause, WorkerDied):
                raise died(str(error.cause)) from error
            raise gone("ray", self._engine.address, error.cause) from error
        except (RayError, OSError, RuntimeError) as error:
            raise gone("ray", self._engine.address, error) from error

    def cancel(self) -> None:
        """As :meth:`auditkit.engines.spec.Ticket.cancel`."""
        if self._engine.is_gone:
            return
        with contextlib.suppress(RayError, OSError, RuntimeError):
            # A process that others' jobs run in, too, is not killed: what runs sees it by itself.
            ray.cancel(self._reference, force=not self._engine.is_shared)
