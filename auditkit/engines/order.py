"""What an engine is given to ship: one JSON document, and what it brings back: another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from auditkit.records.environment import Environment
from auditkit.records.job import Job

#: Below the folder that a job's own folder lies in: what was not taken over yet.
ATTEMPTS = "attempts.partial"

#: In the folder of a task: changed again and again as long as somebody waits for it.
ALIVE = "alive.partial"

#: In the folder of an attempt.
FILES, MESSAGES, PROGRESS = "files", "messages", "progress.json.partial"


def message_name(number: int) -> str:
    """Name of an attempt's message, from 0."""
    return f"{MESSAGES}/{number:06}.json.partial"


@dataclass(frozen=True)
class Order:
    """A job for a worker of an engine.

    Attributes:
        job: The job, with the paths of whoever waits for it.
        task: Folder of the task, absolute; None for a job that leaves no files.
        variables: Environment variables of its process, beside the usual ones.
        scratch: As of :class:`auditkit.processes.worker_pool.Workers`.
        environment: Where the study ran so far; None where any will do.
    """

    job: Job
    task: str | None
    variables: dict[str, str]
    scratch: str | None
    environment: Environment | None


@dataclass(frozen=True)
class Message:
    """A result that a worker hands over.

    Attributes:
        name: ``trunk``, a branch, or the job's kind.
        result: The record, as :func:`auditkit.formats.structure.to_dict` gives it.
        files: Of every file that is new since the last message: size and SHA-256.
    """

    name: str
    result: dict[str, Any]
    files: dict[str, tuple[int, str]]


@dataclass(frozen=True)
class Answer:
    """How a job ended.

    Attributes:
        attempt: Its folder in that of the task.
        n_messages: How many messages lie there.
        result: The result of a job that leaves no files.
        error: What went wrong, as :func:`auditkit.processes.told_errors.describe_error` gives it.
    """

    attempt: str = ""
    n_messages: int = 0
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
