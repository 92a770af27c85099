from __future__ import annotations

import bench_peers
import pytest
import torch
from torch import nn


@pytest.mark.slow
def test_all_ways_are_measured_and_train_alike() -> None:
    rows = {row.name: row for row in bench_peers.measure("mlp", 2, 3)}
    assert rows["bare"].ratio == 1
    assert all(row.milliseconds > 0 for row in rows.values())
    assert rows["bare"].size == 0 < rows["recorder"].size < rows["torch.save"].size
    assert rows["sha256"].size == 65
    assert rows["every 3"].size == pytest.approx(rows["torch.save"].size / 3, rel=0.02)


def test_a_way_that_changes_the_weights_is_no_peer() -> None:
    layers = [nn.Linear(2, 1) for _ in range(2)]
    ways = {
        name: bench_peers.Way(lambda: None, layer.parameters, ("", "", ""))
        for name, layer in zip(("bare", "other"), layers, strict=True)
    }
    with pytest.raises(SystemExit, match="other: the weights are not those of the bare loop"):
        bench_peers.require_equal(ways)
    layers[1].load_state_dict(layers[0].state_dict())
    bench_peers.require_equal(ways)


def test_a_changed_number_changes_what_is_hashed() -> None:
    state = {"model": {"w": torch.zeros(3)}, "groups": [{"lr": 0.1}], "of": [1, 2]}

    def parts() -> bytes:
        return b"".join(bytes(part) for part in bench_peers.parts_of(state))

    before = parts()
    state["model"]["w"][1] = 1.0  # type: ignore[index]
    assert parts() != before


@pytest.mark.parametrize("option", ["--blocks", "--every"])
def test_no_steps_are_no_measurement(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in ("0", "-1", "many"):
        monkeypatch.setattr("sys.argv", ["bench_peers.py", option, number])
        with pytest.raises(SystemExit) as error:
            bench_peers.main()
        assert error.value.code == 2
