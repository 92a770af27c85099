"""The checklist's records, and its questions: what is asked, what fills it, what a person must say.

The survey's items follow the audit artifacts that it asks for (order hashes, buffer and BatchNorm
checksums, RNG contracts, seed pairs, perturbations, uncertainty; arXiv 2601.21624), in this
project's words. The NeurIPS items are quoted from the checklist of its style files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Answer = Literal["yes", "no", "na", "todo"]

SURVEY = "arXiv 2601.21624"
NEURIPS = "NeurIPS"

#: Checks that every item rests on: without them a manifest says nothing that could be cited.
BASE_CHECKS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Question:
    """One question of the checklist.

    Attributes:
        key: Its name in this project, e.g. ``order`` or ``neurips-7``.
        source: Who asks.
        title: Its heading.
        text: Its wording.
        filled_from: What fills it, for people.
        checks: Checks that must have passed before the answer may be yes, beside
            :data:`BASE_CHECKS`; empty where only a person can answer.
        person: What a person must still answer; empty for nothing.
    """

    key: str
    source: str
    title: str
    text: str
    filled_from: str
    checks: tuple[int, ...] = ()
    person: str = ""


@dataclass(frozen=True)
class ChecklistItem:
    """A question with its answer.

    Attributes:
        key: The question's name.
        source: Who asks.
        question: Its wording.
        answer: ``yes`` only where every check behind it passed; ``todo`` where a person must
            answer or a check was not run.
        justification: Facts behind the answer, plain text.
        evidence: A check's number and digests each, plain text.
        title: The question's heading.
        person: What a person must still answer; empty for nothing.
    """

    key: str
    source: str
    question: str
    answer: Answer
    justification: str
    evidence: tuple[str, ...]
    title: str = ""
    person: str = ""


@dataclass(frozen=True)
class Checklist:
    """A filled checklist.

    Attributes:
        manifest_sha256: Digest of the manifest file.
        signed_by: Fingerprint of the trusted key, or None.
        verification: Verdict and extent of the verification.
        checks: Number, name and outcome of every check.
        notes: What the checklist shows and what it does not.
        items: The survey's items, then those of NeurIPS.
    """

    manifest_sha256: str
    signed_by: str | None
    verification: str
    checks: tuple[str, ...]
    notes: tuple[str, ...]
    items: tuple[ChecklistItem, ...]


QUESTIONS: tuple[Question, ...] = (
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
    Question(
        "neurips-4",
        NEURIPS,
        "Experimental result reproducibility",
        "Does the paper fully disclose all the information needed to reproduce the main "
        "experimental results of the paper to the extent that it affects the main claims and/or "
        "conclusions of the paper (regardless of whether the code and data are provided or not)?",
        "checks 1 to 9; manifest, plan, code digests",
        (),
        "Whether the paper discloses what its claims need, and where (section); where readers get "
        "the manifest and its files.",
    ),
    Question(
        "neurips-5",
        NEURIPS,
        "Open access to data and code",
        "Does the paper provide open access to the data and code, with sufficient instructions to "
        "faithfully reproduce the main experimental results, as described in supplemental "
        "material?",
        "check 3; code files, commit, factory and arguments, environment, digests of the data",
        (),
        "Where code and data are open to others (anonymised for review), under which licence, and "
        "how the data are obtained and prepared.",
    ),
    Question(
        "neurips-6",
        NEURIPS,
        "Experimental setting/details",
        "Does the paper specify all the training and test details (e.g., data splits, "
        "hyperparameters, how they were chosen, type of optimizer) necessary to understand the "
        "results?",
        "the signed record of model, optimizer, hyper-parameters, loader, plan",
        (),
        "The data splits, how hyper-parameters were chosen, and where the paper says so.",
    ),
    Question(
        "neurips-7",
        NEURIPS,
        "Experiment statistical significance",
        "Does the paper report error bars suitably and correctly defined or other appropriate "
        "information about the statistical significance of the experiments?",
        "check 10; unit, pairs, intervals, tests, correction",
        (),
        "Whether the paper's error bars and tests are these, and whether it says what they "
        "capture and assume.",
    ),
    Question(
        "neurips-8",
        NEURIPS,
        "Experiments compute resources",
        "For each experiment, does the paper provide sufficient information on the computer "
        "resources (type of compute workers, memory, time of execution) needed to reproduce the "
        "experiments?",
        "the signed record of hardware, run times (self-reported), steps and file sizes",
        (),
        "Memory, and the compute of preliminary and failed runs: the manifest has neither.",
    ),
)
