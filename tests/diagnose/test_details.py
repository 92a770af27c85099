"""What is on disk of a difference beside its digests."""

from __future__ import annotations

import numpy as np
from forging import Arrays, edit_tensors, edit_trace
from studies import Run

from auditkit.diagnose.details import SampleDifference, first_unequal
from auditkit.diagnose.run_difference import compare_runs
from auditkit.evidence.settings import SettingDifference
from auditkit.formats.scalar_file import series_of


def test_the_first_sample_with_other_bytes_is_named_where_samples_were_digested(
    small: Run, forged: Run
) -> None:
    control, reversed_ = small.manifest.seeds[0].branches[0], small.manifest.seeds[0]
    assert control.samples is not None
    name = next(b.samples for b in reversed_.branches if b.name == "order-reverse")
    assert name is not None
    edit_trace(forged, "order-reverse", 8, "batch")

    def edit(samples: Arrays) -> None:
        samples["samples"][1, 0, 0] ^= 1

    edit_tensors(forged, name, edit)
    found = compare_runs(str(small.folder), str(forged.folder))
    (trace,) = found.traces
    assert (trace.trace, trace.kind, trace.step) == ("seed 0, order-reverse", "data drift", 8)
    assert trace.sample is not None
    assert trace.sample.step == 8
    order = np.concatenate([*_order(small)[6:9]])[::-1]
    first = len(_order(small)[6])
    assert trace.sample == SampleDifference(8, *order[first].tolist())


def _order(run: Run) -> list[np.ndarray[tuple[int, int], np.dtype[np.int64]]]:
    from auditkit.files import store
    from auditkit.formats.run_files import order_from_tensors

    name = run.manifest.seeds[0].order
    return order_from_tensors(
        store.read_tensors(run.folder / name, what=name)[0], what=name
    ).batches


def test_of_each_logged_number_the_first_other_step_is_named() -> None:
    nan = float("nan")
    left = {
        "acc": series_of([(1, 0.5), (2, 0.5)]),
        "nan": series_of([(1, nan)]),
        "param_groups[0].lr": series_of([(1, 0.1)]),
    }
    right = {
        "acc": series_of([(1, 0.5), (2, 0.25), (3, 0.5)]),
        "nan": series_of([(1, nan)]),
        "new": series_of([(2, 1.0)]),
    }
    assert first_unequal(left, right) == [("acc", 2, "0.5", "0.25"), ("new", 2, None, "1.0")]
    assert first_unequal(left, left) == []


def test_a_setting_reads_as_a_sentence() -> None:
    one = SettingDifference("lr", "param_groups[0]", "0.05", "0.04", 41)
    assert str(one) == "lr 0.05 -> 0.04 from step 41 on (param_groups[0])"
    late = SettingDifference(
        "momentum", "param_groups[1]", "0.9", None, 2, "both as the runs ended"
    )
    assert str(late) == (
        "momentum 0.9 -> absent from step 2 on (param_groups[1]; both as the runs ended)"
    )
