"""Fixtures of pytest for tests of somebody's training; nothing is loaded before one is used.

::

    def test_training_is_repeatable(assert_repeatable):
        assert_repeatable("study.py", steps=20)


    def test_training_is_what_the_paper_used(assert_same_as):
        assert_same_as("runs/exp1/manifest.json", steps=20)

pytest finds this module by the entry point ``auditkit`` of the group ``pytest11``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

#: Loaded by a fixture, not with pytest.
_HOME = "auditkit.integrations.repeatability"


@pytest.fixture
def assert_repeatable() -> Callable[..., Any]:
    """``assert_repeatable(program_or_loop, steps=20)``: several runs give the same bits."""
    return _load("assert_repeatable")


@pytest.fixture
def assert_same_as() -> Callable[..., Any]:
    """``assert_same_as(manifest, steps=20)``: training still does what was recorded."""
    return _load("assert_same_as")


def _load(name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(importlib.import_module(_HOME), name)
    return function
