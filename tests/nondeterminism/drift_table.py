"""Print how many planted sources are caught and placed, as a Markdown table.

``python tests/nondeterminism/drift_table.py`` plants every source of ``planted.py`` and runs every
honest program, in this process. Intervals are Clopper and Pearson's, 95 %.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parents[1]))

from examining import ANY, Said, examine, run_program, said_of
from planted import EXIT_CODES, HONEST, PLANTED, Kind, Planted
from studies import check

from auditkit.signing.keys import PrivateKey, generate_key

#: How the table names what is said.
NAMES: dict[Kind, str] = {
    "nondeterminism": "nondeterminism, replays disagree",
    "edit": "record of something else, exit 1",
    "environment": "environment differs, exit 6",
    "refused": "refused by name while the study runs",
    "leak": "state that no snapshot holds, check 9",
}


def share(hits: Iterable[bool]) -> str:
    """A proportion with its interval."""
    found = list(hits)
    if not found:
        return "-"
    test = binomtest(sum(found), len(found))
    interval = test.proportion_ci(0.95, method="exact")
    return f"{sum(found)}/{len(found)} ({interval.low:.2f} to {interval.high:.2f})"


def rows(results: list[tuple[Planted, Said]]) -> Iterator[str]:
    """The table, a line each."""
    yield "| said | detected | class | first step | first component | first module |"
    yield "| --- | --- | --- | --- | --- | --- |"
    every: list[tuple[str, tuple[Kind, ...]]] = [(NAMES[kind], (kind,)) for kind in NAMES]
    for name, kinds in [*every, ("all", tuple(NAMES))]:
        chosen = [(planted, said) for planted, said in results if planted.kind in kinds]
        cells = [
            share(said.kind != "none" for _, said in chosen),
            share(
                (said.kind, said.exit_code) == (planted.kind, EXIT_CODES[planted.kind])
                for planted, said in chosen
            ),
            share(said.step == planted.step for planted, said in chosen),
            share(said.component == planted.component for planted, said in chosen),
            share(
                said.module_is_right(planted)
                for planted, said in chosen
                if planted.module is not None
            ),
        ]
        yield f"| {name} | {' | '.join(cells)} |"


def false_alarms(key: PrivateKey, scratch: Path) -> list[bool]:
    """Whether each honest program gives an alarm."""
    found = []
    for number, (factory, arguments) in enumerate(HONEST):
        folder = scratch / f"honest-{number}"
        folder.mkdir()
        run = run_program(folder, key, f"honest_study.py:{factory}", arguments, ANY)
        found.append(said_of(check(run)).kind != "none")
    return found


def main() -> None:
    """Plant, look, print."""
    key, results = generate_key(), []
    with tempfile.TemporaryDirectory() as scratch:
        for number, planted in enumerate(PLANTED):
            folder = Path(scratch) / f"planted-{number}"
            folder.mkdir()
            results.append((planted, examine(planted, folder, key)))
        alarms = false_alarms(key, Path(scratch))
    print("\n".join(rows(results)))
    print(f"\nFalse alarms: {share(alarms)} honest programs.")
    for planted, said in results:
        if not said.is_right(planted):
            print(f"\nWrong: {planted.name}: {said}")


if __name__ == "__main__":
    main()
