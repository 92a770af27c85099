from __future__ import annotations

from pathlib import Path

import bench_checkpoint
import pytest


def test_every_row_is_measured(tmp_path: Path) -> None:
    costs = bench_checkpoint.measure(tmp_path, 4, 2, with_torch=True)
    assert [name for name, cost in costs.items() if len(cost.cpu) != 2] == []
    assert {"checkpoint", "digest", "restore", "resume", "fork check"} < costs.keys()


@pytest.mark.slow
def test_a_large_state_is_in_memory_once(tmp_path: Path) -> None:
    costs = bench_checkpoint.measure(tmp_path, 200, 1, with_torch=False)
    extra = {name: max(cost.extra) for name, cost in costs.items()}
    assert [name for name, share in extra.items() if share > 0.2] == []
