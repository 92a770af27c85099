"""Make every attack and print what became of them, as a Markdown table."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from attacks.attack import Range, strike
from attacks.corpus import ATTACKS
from attacks.subjects import SUBJECTS
from auditkit.signing.keys import generate_key


def main() -> int:
    """Print the table; 0 where everything was judged as it must be."""
    rows: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        honest = Range(Path(scratch, "honest"), generate_key(), SUBJECTS)
        for number, attack in enumerate(ATTACKS):
            folder = Path(scratch, str(number))
            folder.mkdir()
            outcome = strike(attack, honest[attack.subject], folder)
            row = rows.setdefault(attack.group, Counter())
            row[("control " if attack.is_control else "") + outcome.fate] += 1
            if outcome.fate != "caught":
                wrong.append(f"{attack.group}, {attack.name}: {outcome.fate}\n{outcome.text}")
    rows["all"] = sum(rows.values(), Counter())
    columns = (
        "attacks",
        "rejected",
        "by the check meant for it",
        "tracebacks",
        "hangs",
        "controls",
    )
    print(f"| group | {' | '.join(columns)} |")
    print(f"| --- |{' ---: |' * len(columns)}")
    for group, row in rows.items():
        attacks = sum(n for fate, n in row.items() if not fate.startswith("control "))
        controls = row.total() - attacks
        numbers = (
            attacks,
            row["caught"] + row["misjudged"],
            row["caught"],
            row["traceback"] + row["control traceback"],
            row["hang"] + row["control hang"],
            f"{row['control caught']} of {controls} accepted",
        )
        print(f"| {group} | {' | '.join(map(str, numbers))} |")
    print(*wrong, sep="\n\n", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
