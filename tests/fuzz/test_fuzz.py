from __future__ import annotations

import time
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import mutate
from targets import MAX_BYTES, TARGETS, Target, TooExpensiveError, run_once

from auditkit.errors import FormatError

#: Seconds for each target.
BUDGET = 0.6


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_accepts_one_of_its_examples(name: str) -> None:
    target = TARGETS[name]
    accepted = [run_once(target, data, is_traced=True) for data in target.examples()]
    # the only example of a time stamp's reply is a request
    assert any(accepted) or name == "timestamp"


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_examples_are_read_or_refused(name: str) -> None:
    target, start, seed = TARGETS[name], time.monotonic(), 0
    examples = target.examples()
    while time.monotonic() - start < BUDGET:
        rng = Random(f"{name} {seed}")
        data = mutate(rng.choice(examples), rng, is_json=target.is_json)
        try:
            run_once(target, data, is_traced=seed % 16 == 0)
        except Exception as error:
            pytest.fail(
                f"{name}, seed {seed}: {type(error).__name__}: {error}; input {data[:200]!r}"
            )
        seed += 1
    assert seed > 5


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.binary(max_size=200) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(name: str, data: bytes) -> None:
    run_once(TARGETS[name], data)


def _raise(error: Exception) -> object:
    raise error


def test_what_is_no_error_of_ours_is_a_failure() -> None:
    assert not run_once(Target(lambda _: _raise(FormatError("no")), list), b"")
    with pytest.raises(KeyError):
        run_once(Target(lambda _: _raise(KeyError("x")), list), b"")
    with pytest.raises(TooExpensiveError):
        run_once(Target(lambda _: bytes(MAX_BYTES + 1), list), b"", is_traced=True)
