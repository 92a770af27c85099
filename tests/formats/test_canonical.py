from __future__ import annotations

import contextlib
import json
import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.errors import JsonError
from auditkit.formats import canonical
from auditkit.records.digest import Digest

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


def refused(data: bytes, **limits: int) -> str:
    with pytest.raises(JsonError) as caught:
        canonical.loads(data, what="m.json", **limits)
    message = str(caught.value)
    assert message.startswith("m.json: not JSON: ")
    assert message.isprintable()
    assert len(message) < 300
    return message


@given(values)
def test_json_values_round_trip_and_their_bytes_are_a_fixed_point(value: Any) -> None:
    data = canonical.dumps(value)
    assert data.isascii()
    found = canonical.loads(data, what="value")
    assert found == value
    assert canonical.dumps(found) == data


@given(st.dictionaries(st.text(), scalars, min_size=2))
def test_the_order_of_insertion_does_not_show(value: dict[str, Any]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert canonical.dumps(value) == canonical.dumps(backwards)


def test_the_written_form_is_compact_sorted_and_ascii() -> None:
    assert canonical.dumps({"b": (1, 2.0, None), "a": "ü"}) == b'{"a":"\\u00fc","b":[1,2.0,null]}'


@pytest.mark.parametrize("sign", [1, -1])
def test_integers_that_doubles_would_round_become_strings(sign: int) -> None:
    assert canonical.dumps(sign * (2**53 - 1)) == str(sign * (2**53 - 1)).encode()
    assert canonical.dumps(sign * 2**53) == f'"{sign * 2**53}"'.encode()


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        b"bytes",
        {1, 2},
        np.int64(3),
        np.float32(3),
        np.zeros(2),
        {1: "a"},
        {None: 1},
        "\ud800",
        {"\udfff": 1},
        object(),
        Digest("a", "record"),
        1j,
        10**5000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_json_form_is_refused(value: object) -> None:
    with pytest.raises(JsonError, match=r"\$\.a\[1\]"):
        canonical.dumps({"a": [0, value]})


def test_a_cycle_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(JsonError, match="nested too deeply"):
        canonical.dumps(loop)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_json_error(data: bytes) -> None:
    with contextlib.suppress(JsonError):
        canonical.loads(data, what="fuzz")


@given(st.text(alphabet='{}[]",:\\ud8e9+-.0truefalsnNaI \n', max_size=60))
def test_text_that_is_nearly_json_gives_a_value_or_json_error(text: str) -> None:
    try:
        value = canonical.loads(text.encode(), what="fuzz")
    except JsonError:
        return
    assert value == json.loads(text)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "line 1, column 1"),
        (b'{"a": 1', "line 1, column 8"),
        (b'{"a": 1}\n x', "line 2, column 2"),
        (b'{"a":1,"b":{"c":2,"c":3}}', "duplicate key 'c'"),
        (b'{"a":1,"\\u0061":2}', "duplicate key 'a'"),
        (b"[NaN]", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"[-Infinity]", "-Infinity"),
        (b"[1e999]", "1e999"),
        (b"[-1e999]", "-1e999"),
        (b'["\\ud800"]', "surrogate"),
        (b'{"\\uDFFF":1}', "surrogate"),
        (b'["\xed\xa0\x80"]', "UTF-8 (line 1, column 3)"),
        (b'[1,\n "\xff"]', "UTF-8 (line 2, column 3)"),
        (b"\xef\xbb\xbf[]", "byte order mark"),
        ("[]".encode("utf-16"), "UTF-8"),
        (b"1" * 5000, "5000 digits"),
        (b"-" + b"1" * 5000, "too large"),
        (b"1." + b"1" * 5000, "beyond float64"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[" * 65 + b"]" * 65, "column 65"),
        (b'["a\tb"]', "control character"),
        (b"[1,]", "line 1"),
        (b"'a'", "line 1"),
        (b"// comment\n1", "line 1"),
        (b"\x00", "line 1"),
        (b'{"' + b"k" * 10_000 + b'":1,"' + b"k" * 10_000 + b'":1}', "duplicate key"),
        (b'{"\\u001b[31m":1,"\\u001b[31m":1}', r"'\x1b[31m'"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_its_place(data: bytes, says: str) -> None:
    assert says in refused(data)


def test_brackets_in_strings_are_not_nesting() -> None:
    text = json.dumps(["[" * 1000, '\\"[[[' * 100, "{" * 1000])
    assert canonical.loads(text.encode(), what="x") == json.loads(text)


def test_surrogate_pairs_are_characters() -> None:
    assert canonical.loads(b'"\\ud83d\\ude00"', what="x") == "\U0001f600"


def test_limits_can_be_narrowed() -> None:
    assert "limit of 3" in refused(b"[12]", max_bytes=3)
    assert "nested" in refused(b"[[1]]", max_depth=1)


@pytest.mark.parametrize("data", [b'"' + b'\\"' * 10**6, b'"' * 10**6, b"[1," * 50 + b" " * 10**6])
def test_hostile_text_is_refused_in_linear_time(data: bytes) -> None:
    refused(data)  # a quadratic scan would take hours


def test_a_caller_near_the_end_of_the_stack_gets_json_error() -> None:
    data = b"[" * 60 + b"]" * 60

    def descend(levels: int) -> None:
        if levels:
            descend(levels - 1)
        else:
            canonical.loads(data, what="deep")

    depth = 0
    frame: Any = sys._getframe()
    while frame:
        depth, frame = depth + 1, frame.f_back
    for levels in range(sys.getrecursionlimit() - depth - 60, sys.getrecursionlimit() - depth - 20):
        try:
            descend(levels)
        except JsonError:
            continue
        except RecursionError:
            break  # not even the call fitted


@given(values)
def test_a_value_that_is_written_as_it_is_has_the_bytes_of_one_that_was_made_ready(
    value: Any,
) -> None:
    ready = canonical._ready(value, "$", canonical.MAX_DEPTH)
    text = json.dumps(ready, sort_keys=True, separators=(",", ":"), allow_nan=False)
    assert canonical.dumps(value) == text.encode()


@pytest.mark.parametrize(
    ("value", "is_ready"),
    [
        ({"a": [1, 2.5, None, True]}, True),
        (((),), True),
        (2**53, False),
        ({"a": "\ud800"}, False),
        ({1: 2}, False),
        (np.float64(1), False),
        (math.nan, False),
        ([[[]]], False),
    ],
)
def test_only_what_json_writes_canonically_is_written_as_it_is(
    value: object, *, is_ready: bool
) -> None:
    assert canonical._is_ready(value, 2) is is_ready
