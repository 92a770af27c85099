from __future__ import annotations

import pytest

from auditkit.engines.spec import EngineSpec
from auditkit.errors import ConnectionLost

pytest.importorskip("ray", reason='needs pip install "auditkit[ray]"')


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nowhere", "ray://x:y"])
def test_a_cluster_that_does_not_answer_is_named(address: str) -> None:
    with pytest.raises(ConnectionLost, match="no scheduler of ray answers") as caught:
        EngineSpec("ray", address).connect(1)
    assert caught.value.where == address
