"""Names of metrics: ``tv``, ``PROBE/tv`` of a named probe, ``measures/NAME``."""

from __future__ import annotations

import re

#: What stands in front of a measure's name; no probe has this name.
MEASURES = "measures"

#: Names of probes and measures.
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}", re.ASCII)


def split_metric(name: str) -> tuple[str, str]:
    """Probe and metric; of a measure the two parts of its name. Without a probe it is empty."""
    probe, _, metric = name.rpartition("/")
    return probe, metric


def qualified(probe: str, metric: str) -> str:
    """Name of a probe's metric; of the only one, which has no name, the metric's own."""
    return f"{probe}/{metric}" if probe else metric


def is_measure(name: str) -> bool:
    """Whether it is a measure."""
    return split_metric(name)[0] == MEASURES


def base_metric(name: str) -> str:
    """The metric without its probe; a measure as it is."""
    return name if is_measure(name) else split_metric(name)[1]


def is_well_formed(name: str) -> bool:
    """Whether a probe in front of the metric has a name's form, and a measure has a name."""
    probe, slash, metric = name.rpartition("/")
    if not slash:
        return True
    return NAME.fullmatch(probe) is not None and (probe != MEASURES or bool(NAME.fullmatch(metric)))
