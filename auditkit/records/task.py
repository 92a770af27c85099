"""What a Recorder is told to do by the auditkit process that started its script."""

from __future__ import annotations

from dataclasses import dataclass, field

from auditkit.records.digest import EVIDENCE_RECIPE


@dataclass(frozen=True)
class RowsTask:
    """Stream the rows of the loop.

    Attributes:
        checkpoint: Absolute path of a snapshot to resume from, or None for the loop's own start.
        drawn: What further loaders had delivered there since the last step, as the checkpoint's
            record has it.
        first_step: Step of the first row.
        last_step: Step after which the loop is stopped; None to let it end by itself.
        modules_at: A step in which every module is digested, after which the loop is stopped;
            None for none.
        dump_at: Steps after which the state is written to a file, and the loop goes on; None for
            none.
        dump_to: Absolute path of that file.
        commit_at: Steps after which the state is committed to, as a checkpoint there would be;
            nothing is written.
        order_head: Chain over the order of the steps before, hexadecimal; empty at the start.
        consumed_head: Chain over their batches.
        deterministic: Whether to set deterministic kernels, which a Recorder never does by
            itself.
        threads: Threads to set then.
        evidence_digest: Recipe of the state's digests.
    """

    checkpoint: str | None = None
    drawn: dict[str, str] = field(default_factory=dict)
    first_step: int = 1
    last_step: int | None = None
    modules_at: int | None = None
    dump_at: int | None = None
    dump_to: str = ""
    commit_at: tuple[int, ...] = ()
    order_head: str = ""
    consumed_head: str = ""
    deterministic: bool = False
    threads: int = 1
    evidence_digest: str = EVIDENCE_RECIPE
