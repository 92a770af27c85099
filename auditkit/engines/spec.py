"""``--engine dask``, ``--engine dask:ADDRESS``, and the same of ray."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import Any, Protocol

from auditkit.errors import UsageError
from auditkit.formats.quote import brief

#: The modules that know an engine, by its name; each is loaded only where it is asked for.
_MODULES = {"dask": "auditkit.engines.dask_engine", "ray": "auditkit.engines.ray_engine"}


class Ticket(Protocol):
    """A job that was given to an engine."""

    def answer(self) -> str | None:
        """What the job answered; None while it is under way.

        Raises:
            AuditError: When the engine lost it, or itself.
        """

    def cancel(self) -> None:
        """Have it given up."""


class Engine(Protocol):
    """Ships jobs to workers, and tries again where a worker died."""

    def submit(self, order: str, name: str, threads: int) -> Ticket:
        """Have :func:`auditkit.engines.remote_job.do` called with an order.

        Args:
            order: The order.
            name: For the engine's own dashboard.
            threads: Cores that the job uses.
        """

    def close(self) -> None:
        """Let go of it, and end the workers that were started for it."""


@dataclass(frozen=True)
class EngineSpec:
    """Which engine.

    Attributes:
        name: ``dask`` or ``ray``.
        address: Of its scheduler; None to start workers on this machine.
    """

    name: str
    address: str | None

    @property
    def is_local(self) -> bool:
        """Whether its workers are started here."""
        return self.address is None

    def connect(self, jobs: int) -> Engine:
        """Connect to it, or start it.

        Args:
            jobs: How many workers are started, where they are started here.

        Raises:
            UsageError: When its package is not installed.
            ConnectionLost: When nobody answers at the address.
        """
        engine: Engine = self._module().connect(self.address, jobs)
        return engine

    def require_installed(self) -> None:
        """Require its package.

        Raises:
            UsageError: When it is not installed.
        """
        self._module()

    def _module(self) -> Any:
        # Ray reads it when it is loaded: a thread that asks for a job while this process ends
        # would start another node for it.
        os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
        try:
            return importlib.import_module(_MODULES[self.name])
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "auditkit":
                raise
            raise UsageError(
                f"the package {error.name} is not installed",
                hint=f'pip install "auditkit[{self.name}]"',
            ) from error


def parse_engine(text: str) -> EngineSpec:
    """Read what was given for an engine.

    Raises:
        UsageError: When it names none.
    """
    name, colon, address = text.partition(":")
    if name not in _MODULES or (colon and not address.strip()):
        raise UsageError(
            f"{brief(text)} is no engine", hint="give dask, ray, dask:ADDRESS or ray:ADDRESS"
        )
    return EngineSpec(name, address.strip() or None)
