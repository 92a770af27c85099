"""Names that a callback registers, and those that its user does."""

from __future__ import annotations

import pytest

from auditkit.errors import RecorderMisuse
from auditkit.integrations.registered import with_own


def test_both_are_registered_and_no_name_twice() -> None:
    assert with_own({"trainer": 1}, None) == {"trainer": 1}
    assert with_own({"trainer": 1}, {"rng": 2}) == {"trainer": 1, "rng": 2}
    with pytest.raises(RecorderMisuse, match="registers a 'trainer' of its own; give yours"):
        with_own({"trainer": 1}, {"trainer": 2})
