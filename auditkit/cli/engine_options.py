"""``--engine`` of the commands that run something: which, with how many workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from auditkit.cli.options import TEXT, default_jobs
from auditkit.engines.spec import EngineSpec, parse_engine

if TYPE_CHECKING:
    from auditkit.processes.worker_pool import Workers

#: Most workers that are started here where nobody said how many, and most seeds that are given to
#: somebody else's scheduler at a time.
_MOST_HERE, _MOST_THERE = 8, 256


def _parsed(_ctx: click.Context, _param: click.Parameter, value: str | None) -> EngineSpec | None:
    return None if value is None else parse_engine(value)


engine_option = click.option(
    "--engine",
    type=TEXT,
    callback=_parsed,
    help="Have it done by dask or ray, on this machine, or by the scheduler at dask:ADDRESS or "
    "ray:ADDRESS.",
)


def jobs_for(engine: EngineSpec | None, threads: int, n_seeds: int) -> int:
    """Seeds at a time where nobody said how many: as cores allow, or as the scheduler does."""
    if engine is None or engine.is_local:
        return default_jobs(threads, n_seeds)
    return max(1, min(n_seeds, _MOST_THERE))


def first_step(engine: EngineSpec | None) -> str:
    """What is waited for before anything else, for people."""
    if engine is None:
        return "building the program ..."
    how = "starting" if engine.is_local else "connecting to"
    return f"{how} {engine.name}, then building the program ..."


def remote_workers(engine: EngineSpec, jobs: int | None) -> Workers:
    """Workers of an engine.

    Args:
        engine: The engine.
        jobs: How many seeds at a time were asked for.
    """
    # Lazy for start-up time.
    from auditkit.engines.remote_workers import RemoteWorkers  # noqa: PLC0415

    return RemoteWorkers(engine, max(1, jobs or default_jobs(1, _MOST_HERE)))
