"""Extras: ready-made objects for ``extras=`` of a program or a recorder.

``auditkit.extras.Gymnasium(env)`` holds the state of an environment of gymnasium.
"""

from __future__ import annotations

from auditkit.observe.state.environments import Gymnasium

__all__ = ["Gymnasium"]
