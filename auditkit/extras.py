"""Extras: ready-made objects for ``extras=`` of a program or a recorder.

``auditkit.extras.Gymnasium(env)`` holds the state of an environment of gymnasium,
``auditkit.extras.RingBuffer`` a replay memory whose evidence costs what was written.
"""

from __future__ import annotations

from auditkit.observe.state.environments import Gymnasium
from auditkit.observe.state.ring_buffer import RingBuffer

__all__ = ["Gymnasium", "RingBuffer"]
