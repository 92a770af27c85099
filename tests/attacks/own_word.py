"""Authors who vouch for themselves: replays that must not make a recording *verified*."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from studies import Run
from synthetic_recordings import DRIFT, REVIEWER, Loop, Recording, write_recording, write_replay

from attacks.attack import Attack
from auditkit.signing.envelopes import add_signature
from auditkit.signing.keys import PrivateKey, TrustedKey, fingerprint, generate_key

GROUP = "own word"

#: Keys of the author's beside the one that signs, and a stranger's.
_SECOND, _THIRD, _STRANGER = generate_key(), generate_key(), generate_key()

EARLY, LATE = (f"replay-{16 * c}-2026010{c}T000000000000Z.json" for c in "12")


@dataclass(frozen=True)
class Trusting(Recording):
    """A recording whose verifier trusts further keys, or knows more of their holders."""

    more: tuple[TrustedKey, ...] = field(default=())

    @property
    def trusted(self) -> list[TrustedKey]:
        """The author's key, the reviewer's, and these."""
        return [*super().trusted, *self.more]


def named(key: PrivateKey, *principals: str) -> TrustedKey:
    """A key as ``allowed_signers`` gives it."""
    return TrustedKey(fingerprint(key), key.public_key(), "test", principals=principals)


def _of(run: Run) -> Recording:
    return Recording(run.folder, run.key)


def _own(name: str = "replay.json", **changes: Any) -> Callable[[Run], object]:
    """The only replay is the author's."""

    def apply(run: Run) -> None:
        (run.folder / "replay.json").unlink()
        write_replay(_of(run), run.key, name, **changes)

    return apply


def _second_key(run: Run) -> Run:
    write_replay(_of(run), _SECOND)
    more = (named(run.key, "alice@x"), named(_SECOND, "a.liddell@y", "alice@x"))
    return Trusting(run.folder, run.key, more)


def _second_key_by_way_of_a_third(run: Run) -> Run:
    write_replay(_of(run), _SECOND)
    more = (
        named(run.key, "alice@x"),
        named(_SECOND, "alice@y"),
        named(_THIRD, "alice@x", "alice@y"),
    )
    return Trusting(run.folder, run.key, more)


def _second_key_named_twice(run: Run) -> Run:
    """Once without a principal, as --fingerprint names it, and once with."""
    write_replay(_of(run), _SECOND)
    more = (named(_SECOND), named(run.key, "alice@x"), named(_SECOND, "alice@x"))
    return Trusting(run.folder, run.key, more)


def _also_signs_the_recording(run: Run) -> None:
    """A second author; the replay counted until he signed the recording."""
    run.path.write_bytes(add_signature(run.path.read_bytes(), REVIEWER, what="manifest"))
    write_replay(_of(run))


def _with_a_strangers_signature(run: Run) -> None:
    path = write_replay(_of(run), run.key)
    path.write_bytes(add_signature(path.read_bytes(), _STRANGER, what="replay"))


def _under_the_reviewers_name(run: Run) -> None:
    path = write_replay(_of(run), run.key)
    told = json.loads(path.read_bytes())
    told["signatures"][0]["keyid"] = fingerprint(REVIEWER)
    path.write_text(json.dumps(told))


def _reviewers_of_another_recording(run: Run) -> None:
    other = write_recording(run.folder.parent / "other", run.key, Loop(seed=1, checkpoints=(2, 5)))
    (run.folder / "replay.json").write_bytes(write_replay(other).read_bytes())
    write_replay(_of(run), run.key, EARLY)


def _completed(run: Run) -> None:
    """The reviewer compared a part; the author says that he did the rest."""
    write_replay(_of(run), last_step=3)
    write_replay(_of(run), run.key, EARLY)


def _in_pieces(run: Run) -> None:
    write_replay(_of(run), last_step=3)
    write_replay(_of(run), name=EARLY, first_step=4)


def _beside(key: PrivateKey | None, good: str, bad: str) -> Callable[[Run], object]:
    """A replay that found everything equal, beside the reviewer's, which did not."""

    def apply(run: Run) -> None:
        (run.folder / "replay.json").unlink()
        write_replay(_of(run), key or run.key, good)
        write_replay(_of(run), name=bad, findings=(DRIFT,), last_step=3)

    return apply


def _own_word(name: str, apply: Callable[[Run], object], says: str) -> Attack:
    return Attack(name, GROUP, apply, 8, 0, says, subject="replayed")


def _contradicted(name: str, apply: Callable[[Run], object]) -> Attack:
    return Attack(
        *(name, GROUP, apply, 8, 1, DRIFT.message),
        where="rank 0",
        step=3,
        component="params",
        subject="replayed",
    )


SAYS = "the author says he replayed it"

ATTACKS = (
    _own_word("the author's replay", _own(), SAYS),
    _own_word("the author's replay, by its own name", _own(LATE), SAYS),
    _own_word("the author's replay of some steps", _own(last_step=3), SAYS),
    _own_word("a second key of the author's", _second_key, SAYS),
    _own_word("a second key, by way of a third", _second_key_by_way_of_a_third, SAYS),
    _own_word("a second key that is named twice", _second_key_named_twice, SAYS),
    _own_word("a second author's replay", _also_signs_the_recording, SAYS),
    _own_word("a stranger signs the author's, too", _with_a_strangers_signature, SAYS),
    _own_word("the reviewer's name on it", _under_the_reviewers_name, SAYS),
    _own_word("another recording's", _reviewers_of_another_recording, "about another manifest"),
    _own_word("the author completes the reviewer's", _completed, "only steps 1..3"),
    _own_word("a whole replay in two pieces", _in_pieces, "only steps 4..5"),
    _contradicted("the author's over the reviewer's", _beside(None, "replay.json", EARLY)),
    _contradicted("the author's after the reviewer's", _beside(None, LATE, EARLY)),
    _contradicted("one good replay out of two", _beside(REVIEWER, LATE, EARLY)),
    _contradicted("one good replay out of two, first", _beside(REVIEWER, EARLY, "replay.json")),
    Attack(
        "the author's beside the reviewer's",
        GROUP,
        lambda run: write_replay(_of(run), run.key, LATE),
        0,
        0,
        subject="replayed",
    ),
    Attack(
        "a stranger's contradiction",
        GROUP,
        lambda run: write_replay(_of(run), _STRANGER, LATE, findings=(DRIFT,)),
        0,
        0,
        subject="replayed",
    ),
)
