"""Check 8, what is replayed: everything, or as much as was asked for. Loaded for a replay only."""

from __future__ import annotations

from auditkit.evidence.reader import RunEvidence
from auditkit.replay.budget import replay_within
from auditkit.replay.request import Replayer, ReplayOutcome, ReplayRequest
from auditkit.replay.sampling import Sample, by_seed, describe_sample, draw, shuffled
from auditkit.verification.request import VerifyRequest


def replay_sample(
    run: RunEvidence, request: VerifyRequest, replayer: Replayer
) -> tuple[ReplayOutcome, Sample]:
    """Replay what was asked for; says what that was."""
    manifest = run.manifest
    sample = draw(manifest, request.replay, request.replay_seed)
    replay_request = ReplayRequest(
        *(sample.choice, request.arguments, request.jobs, request.command),
        *(request.tolerance, request.variables, request.engine),
    )
    if request.budget is None:
        return replayer(run, replay_request), sample
    order = shuffled(manifest, request.replay_seed)
    if isinstance(request.replay, int):
        order = order[: request.replay]
    replayed = replay_within(request.budget, order, replayer, run, replay_request)
    how = f", in {replayed.seconds:.0f} of {request.budget:.0f} seconds"
    text = describe_sample(manifest, len(replayed.done), request.replay_seed, how)
    everything = sample.is_everything and len(replayed.done) == len(order)
    return replayed.outcome, Sample(by_seed(replayed.done), everything, text)
