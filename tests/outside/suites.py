"""Suites of other people's: what strict readers and verifiers of signatures ought to say.

The suites are not part of this repository. The manual (``auditkit explain outside``) has the
commands that fetch them, at the commits that the numbers there are of, into a folder::

    python tests/outside/suites.py FOLDER

- ``FOLDER/JSONTestSuite`` (https://github.com/nst/JSONTestSuite): a file each, of which the
  first letter of the name says what a reader does with it: ``y`` accepts, ``n`` rejects,
  ``i`` as it likes, which here is only that it answers.
- ``FOLDER/wycheproof`` (https://github.com/C2SP/wycheproof): signatures with the verdict of
  people who attack such code. Keys go through the reader of key files; one that it refuses
  verifies nothing.

The exit code is 0 where every case gave what is expected, 1 where one did not, 2 where the
suites are not there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditkit.errors import AuditError, JsonError
from auditkit.formats import canonical
from auditkit.signing.keys import PublicKey, parse_public_keys, verifies

JSON_CASES = "JSONTestSuite/test_parsing"
VECTORS = {
    "Ed25519": "wycheproof/testvectors_v1/ed25519_test.json",
    "ECDSA P-256": "wycheproof/testvectors_v1/ecdsa_secp256r1_sha256_test.json",
}

#: Good JSON by the grammar, refused on purpose: two readers of one signed file may see two things.
REFUSED = {
    "y_object_duplicated_key.json": "duplicate key",
    "y_object_duplicated_key_and_value.json": "duplicate key",
}

ACCEPTED, REJECTED, EITHER = "accepted", "rejected", "either"
_EXPECTED = {"y": ACCEPTED, "n": REJECTED, "i": EITHER}


@dataclass(frozen=True)
class Answer:
    """What was made of one case.

    Attributes:
        suite: The suite, or the part of it.
        case: Its name there.
        expected: What the suite says: accepted, rejected or either.
        found: What was done.
        reason: Why it was rejected, where that was said.
    """

    suite: str
    case: str
    expected: str
    found: str
    reason: str = ""

    @property
    def as_told(self) -> bool:
        """Whether that is what the suite says."""
        return self.expected in (self.found, EITHER)

    @property
    def as_meant(self) -> bool:
        """Whether that is what auditkit means to do."""
        if self.case in REFUSED:
            return self.found == REJECTED and REFUSED[self.case] in self.reason
        return self.as_told


def missing(folder: Path) -> list[str]:
    """What of the suites is not there."""
    return [name for name in (JSON_CASES, *VECTORS.values()) if not (folder / name).exists()]


def answers(folder: Path) -> list[Answer]:
    """Every case of every suite, and what was made of it."""
    found = [_json_answer(path) for path in sorted((folder / JSON_CASES).glob("*.json"))]
    for suite, name in VECTORS.items():
        found += _signature_answers(suite, json.loads((folder / name).read_bytes()))
    return found


def _json_answer(path: Path) -> Answer:
    expected = _EXPECTED[path.name[0]]
    suite = f"JSON, to be {expected}"
    data = path.read_bytes()
    try:
        value = canonical.loads(data, what=path.name)
    except JsonError as error:
        return Answer(suite, path.name, expected, REJECTED, error.message)
    if value != json.loads(data):
        return Answer(suite, path.name, expected, f"read as {value!r}")
    return Answer(suite, path.name, expected, ACCEPTED)


def _signature_answers(suite: str, vectors: Any) -> Iterator[Answer]:
    for group in vectors["testGroups"]:
        key = _key(group["publicKeyPem"])
        for test in group["tests"]:
            signature, message = bytes.fromhex(test["sig"]), bytes.fromhex(test["msg"])
            good = isinstance(key, PublicKey) and verifies(key, signature, message)
            yield Answer(
                suite,
                f"{test['tcId']} ({test['comment']})",
                ACCEPTED if test["result"] == "valid" else REJECTED,
                ACCEPTED if good else REJECTED,
                key if isinstance(key, str) else "",
            )


def _key(pem: str) -> PublicKey | str:
    """The key as a key file is read, or why it is refused."""
    try:
        (trusted,) = parse_public_keys(pem.encode(), source="a vector")
    except AuditError as error:
        return error.message
    return trusted.public_key


def table(found: list[Answer]) -> dict[str, tuple[int, int]]:
    """By suite: of how many cases what it says was done, and how many there are."""
    counts: dict[str, tuple[int, int]] = {}
    for answer in found:
        told, cases = counts.get(answer.suite, (0, 0))
        counts[answer.suite] = (told + answer.as_told, cases + 1)
    return counts


def main(arguments: list[str]) -> int:
    """Run the suites in a folder."""
    lacking = ["a folder"] if len(arguments) != 1 else missing(Path(arguments[0]))
    if lacking:
        print(f"not there: {', '.join(lacking)}; see `auditkit explain outside`", file=sys.stderr)
        return 2
    found = answers(Path(arguments[0]))
    for suite, (told, cases) in table(found).items():
        print(f"{suite:24}{told:5} of {cases}")
    for answer in found:
        if answer.as_meant and not answer.as_told:
            print(f"{answer.case}: {answer.found} on purpose, {answer.reason}")
    wrong = [answer for answer in found if not answer.as_meant]
    for answer in wrong:
        print(f"WRONG: {answer.suite}, {answer.case}: {answer.found}, not {answer.expected}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
