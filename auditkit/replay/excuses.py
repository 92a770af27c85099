"""What another environment excuses of a difference, and what it never does.

Another processor rounds otherwise, so states may be others, and what follows from them. What a
program is, and what its author declares, follows from no rounding: only other packages can give a
class another name. And who stood in every recorded state rounds as the record does.
"""

from __future__ import annotations

from collections.abc import Sequence

from auditkit.evidence.comparison import Mismatch
from auditkit.records.manifest import DataRecord

#: Ends what no other environment excuses, since the states are the same.
UNFOUNDED = "the state is the recorded one, so no other environment excuses it"

#: Ends what no other environment excuses, since it follows from no state.
UNCAUSED = "no other environment makes it another"

#: What the program's own code says and counts.
_OWN = ("data (declared)", "data (samples)", "data (data_from)", "probes and measures")


def excusing(
    mismatch: Mismatch, differences: Sequence[str], data: DataRecord | None = None
) -> list[str]:
    """Those differences of two environments that may explain a mismatch.

    Args:
        mismatch: Of record and replay, which did not stand in the same states.
        differences: One line each, its section first.
        data: What is recorded of the seed's data.
    """
    name = mismatch.component
    by_model = data is not None and data.data_from == "model"
    is_reset = mismatch.kind == "description" and mismatch.branch != "trunk" and data is not None
    if is_reset or (name in _OWN and not (by_model and name == "data (samples)")):
        return []
    if mismatch.kind == "description" or name == "data (loader)":
        return [line for line in differences if line.startswith(("packages: ", "python: "))]
    return list(differences)


def excusing_end(mismatch: Mismatch, differences: Sequence[str]) -> list[str]:
    """The same of the end of a recording every row of which a replay gave.

    Its last step may still be rounded otherwise.
    """
    if mismatch.kind in ("length", "order drift", "data drift"):
        return []
    return excusing(mismatch, differences)


def reason(differences: Sequence[str]) -> tuple[str, int]:
    """Why a replay may part from the record, as the end of a finding, and its exit code."""
    if differences:
        return f"; environment differs ({differences[0]}), an edit cannot be excluded", 6
    return (
        ", so the record is of something else: edited evidence, other code, other data,"
        " or a variable, date or path that the program looks at"
    ), 1
