"""SHA-256 commitments to a training state."""

from __future__ import annotations

from collections.abc import Mapping

from auditkit.observe.values.codec import Leaves
from auditkit.observe.values.digests import digest_leaves
from auditkit.records.digest import COMMITMENT_RECIPE


def commitments(state: Mapping[str, Leaves]) -> dict[str, str]:
    """``sha256/tensor-v1`` of every component, in hexadecimal."""
    return {name: digest_leaves(COMMITMENT_RECIPE, leaves).hex() for name, leaves in state.items()}
