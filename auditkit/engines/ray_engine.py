"""Jobs by ray: its scheduler, its retries, its dashboard."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from typing import Any
from urllib.parse import urlsplit

import ray
from ray.exceptions import RayError, RayTaskError

from auditkit.engines.lost import died, gone, unreachable
from auditkit.engines.remote_job import WorkerDied, do

#: How often a job is tried again whose worker died, or whose process was killed there.
_RETRIES = 3

#: Seconds to connect in.
_CONNECT = 15.0


def connect(address: str | None, jobs: int) -> RayEngine:
    """Connect to a cluster, or start one with as many cores as jobs.

    Raises:
        ConnectionLost: When there is none.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a study tells nobody that it runs
    started: dict[str, Any] = {"num_cpus": jobs, "include_dashboard": False}
    if address is not None:
        started = {}
    if ray.is_initialized():
        return RayEngine(address, is_ours=False)
    try:
        _require_somebody(address)
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            **started,
        )
    except (OSError, ValueError, RuntimeError, RayError) as error:
        raise unreachable("ray", address, error) from error
    return RayEngine(address, is_ours=True)


def _require_somebody(address: str | None) -> None:
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
    socket.create_connection((place.hostname, place.port), timeout=_CONNECT).close()


class RayEngine:
    """This process as a driver.

    Args:
        address: Of the cluster, as it was given.
        is_ours: Whether the connection was made for this, and is closed after it.
    """

    def __init__(self, address: str | None, *, is_ours: bool) -> None:
        self.address, self._is_ours = address, is_ours
        self._function = ray.remote(do)

    def submit(self, order: str, name: str, threads: int) -> RayTicket:
        """As :meth:`auditkit.engines.spec.Engine.submit`."""
        settings = {
            "name": name,
            "num_cpus": threads,
            "max_retries": _RETRIES,
            "retry_exceptions": [WorkerDied],
        }
        try:
            return RayTicket(self, self._function.options(**settings).remote(order))
        except (RayError, OSError, RuntimeError) as error:
            raise gone("ray", self.address) from error

    def close(self) -> None:
        """As :meth:`auditkit.engines.spec.Engine.close`."""
        if self._is_ours:
            with contextlib.suppress(RayError, OSError, RuntimeError):
                ray.shutdown()


class RayTicket:
    """A job that ray was given."""

    def __init__(self, engine: RayEngine, reference: Any) -> None:
        self._engine, self._reference = engine, reference

    def answer(self) -> str | None:
        """As :meth:`auditkit.engines.spec.Ticket.answer`."""
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
        with contextlib.suppress(RayError, OSError, RuntimeError):
            ray.cancel(self._reference, force=True)
