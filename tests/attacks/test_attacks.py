"""Every attack of the corpus is caught, by the check that is meant for it, with a clear message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attacks.attack import Attack, Range, strike
from attacks.corpus import ATTACKS
from attacks.subjects import SUBJECTS
from auditkit.signing.keys import PrivateKey

#: A replay in new interpreters for what shows that the check looks: the attack beside it is enough.
_SLOW = ("control: the same, let through by name",)


#: Two that agree tell an edit from chance as four do, and where chance is at work two differ.
REPLAYS = 2


def _marked(attack: Attack) -> Any:
    marks = [pytest.mark.slow] if attack.name in _SLOW else []
    return pytest.param(attack, id=f"{attack.group}: {attack.name}", marks=marks)


@pytest.fixture(scope="session")
def honest_runs(tmp_path_factory: pytest.TempPathFactory, key: PrivateKey) -> Range:
    return Range(tmp_path_factory.mktemp("honest"), key, SUBJECTS)


@pytest.mark.parametrize("attack", [_marked(attack) for attack in ATTACKS])
def test_an_attack_is_caught_by_the_check_that_is_meant_for_it(
    attack: Attack, honest_runs: Range, tmp_path: Path
) -> None:
    outcome = strike(attack, honest_runs[attack.subject], tmp_path, replays=REPLAYS)
    assert outcome.fate == "caught", outcome.text


def test_the_corpus_is_large_and_every_attack_has_a_name_of_its_own() -> None:
    assert sum(not attack.is_control for attack in ATTACKS) >= 70
    names = [(attack.group, attack.name) for attack in ATTACKS]
    assert len(set(names)) == len(names)


def test_the_manual_tells_how_many_attacks_there_are() -> None:
    page = (Path(__file__).parents[2] / "auditkit/manual/limits.md").read_text(encoding="utf-8")
    for group in dict.fromkeys(attack.group for attack in ATTACKS):
        members = [attack for attack in ATTACKS if attack.group == group]
        controls = sum(attack.is_control for attack in members)
        n = len(members) - controls
        assert f"| {group} | {n} | {n} | {n} | {controls} of {controls} |" in page
