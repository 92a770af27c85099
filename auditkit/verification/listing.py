"""Check 4, for the list of files: what a manifest lists is what it uses, each file once."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from auditkit.records.manifest import CODE_FOLDER
from auditkit.records.report import Finding
from auditkit.records.study import CodeFile, FileRecord


def check_listing(
    files: Sequence[FileRecord], used: Iterable[tuple[str, str]], code: Sequence[CodeFile]
) -> Iterator[Finding]:
    """Findings about the list of files.

    Args:
        files: What the manifest lists.
        used: Name and role of everything that it refers to, besides code.
        code: The sources that it refers to.
    """
    pairs = [(f"{CODE_FOLDER}/{file.name}", "code") for file in code] + list(used)
    wanted = dict(pairs)
    if len(wanted) != len(pairs):
        yield Finding("one file stands for two things")
    listed = {file.name: file.role for file in files}
    for name in sorted(set(wanted) | set(listed)):
        if wanted.get(name) != listed.get(name):
            yield Finding(f"listed as {listed.get(name)}, used as {wanted.get(name)}", where=name)
    digests = {file.name: file.sha256 for file in files}
    for source in code:
        name = f"{CODE_FOLDER}/{source.name}"
        if digests.get(name) != source.sha256:
            yield Finding("two digests for one source", where=name)
    if list(listed) != sorted(listed):
        yield Finding("the list of files is not in the order of their names")
    yield from _twins(sorted(listed))


def _twins(names: Iterable[str]) -> Iterator[Finding]:
    """Names that another file system takes for one: it would hold one of the two files."""
    seen: dict[str, str] = {}
    for name in names:
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
        if plain in seen:
            text = f"differs from {seen[plain]!a} only in case or in Unicode form"
            yield Finding(f"{text}; elsewhere the two are one file", where=name)
        seen[plain] = name
