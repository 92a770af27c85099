from __future__ import annotations

from report_reading import named, parsed, words

from auditkit.paper.timeline import timeline
from auditkit.records.plan import StudyPlan

PLAN = StudyPlan(10, 5, 40, [0, 1], ["momentum-reset", "order-reverse"], placebos=2)


def test_every_branch_has_a_line_and_a_dot_at_every_time() -> None:
    tree = parsed(f"<!DOCTYPE html><title>x</title>{timeline(PLAN)}")
    assert {words(node) for node in named(tree, "text")} == {
        *("trunk", "control", "replica", "2 placebos", "momentum-reset", "order-reverse"),
        *("t0 = 10", "t0+W = 15", "T = 40"),
    }
    assert len(list(named(tree, "circle"))) == 5 * 2
    assert not [node for node in named(tree, "line") if node.get("stroke-dasharray")]


def test_a_causal_break_is_a_second_copy_of_all_but_the_replica() -> None:
    broken = PLAN.changed(causal_break="optimizer-reset")
    tree = parsed(f"<!DOCTYPE html><title>x</title>{timeline(broken)}")
    dashed = [node for node in named(tree, "line") if node.get("stroke-dasharray")]
    assert len(dashed) == 4
    assert len(list(named(tree, "circle"))) == 5 * 2 + 4
    (caption,) = named(tree, "figcaption")
    assert "Dashed: the second copy of each, with optimizer-reset at t0+W" in words(caption)
