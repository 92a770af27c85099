"""The survey's items: what is asked, and what fills it."""

from __future__ import annotations

from auditkit.paper.questions import SURVEY, Question, Source

SURVEY_LIST = Source(
    "survey",
    SURVEY,
    f"Training memory ({SURVEY})",
    "The artifacts that the survey's abstract names, in this project's words. It gives no numbers.",
)

SURVEY_QUESTIONS: tuple[Question, ...] = (
    Question(
        "order",
        SURVEY,
        "Order hashes",
        "Is the data order of every run identified by a hash of the sample indices in the order "
        "in which they were consumed?",
        "check 6; order_sha256 of each seed and of each treatment that permutes the order",
        (6,),
    ),
    Question(
        "state",
        SURVEY,
        "Buffer and BatchNorm checksums",
        "Are buffers and BatchNorm statistics, and the other components of the training state, "
        "identified by checksums at the fork, at the end of the window and at the horizon?",
        "checks 7 and, where it was run, 8; sha256/tensor-v1 of each component at t0, t0+W and T",
        (7,),
    ),
    Question(
        "rng",
        SURVEY,
        "RNG contracts",
        "Is it stated which random streams exist, how each was seeded, what state each was in, "
        "and which are not covered?",
        "check 5; the contract's recipe, streams, seeds, states and what it does not cover",
        (5,),
    ),
    Question(
        "pairs",
        SURVEY,
        "Paired seeds",
        "Are control and treatment paired by seed, so that they share state, random streams and "
        "data order up to t0 and differ only in the declared perturbation?",
        "checks 5, 6 and 7; the plan's seeds, and the digest of each fork",
        (5, 6, 7),
        "How the seeds were chosen, and whether other seeds were run: no manifest can show that.",
    ),
    Question(
        "kernels",
        SURVEY,
        "Deterministic kernels",
        "Were the runs made with deterministic kernels, and does re-execution give the same bits?",
        "check 8; the recorded settings and the digests that re-execution gave again",
        (8,),
    ),
    Question(
        "perturbations",
        SURVEY,
        "Perturbation versions",
        "Is every perturbation given by name, parameters and version, together with the "
        "components of the training state that it changed?",
        "check 7 and, where it was run, 8; the plan, versions, and what differs at t0",
        (7,),
    ),
    Question(
        "floor",
        SURVEY,
        "Noise floor",
        "Is a noise floor reported: a replica that equals the control, and placebos whose "
        "distance from the control every effect is compared with?",
        "checks 8, 9 and 10; placebos, whether their nudge had grown by T, and the floor",
        (8, 9, 10),
    ),
    Question(
        "uncertainty",
        SURVEY,
        "Uncertainty",
        "Are effects given with the number of seed pairs, intervals or exact tests over seeds, "
        "and a correction for multiple comparisons?",
        "checks 9 and 10; the estimates of the primary metric",
        (8, 9, 10),
    ),
)
