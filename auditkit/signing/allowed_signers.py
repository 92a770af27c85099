"""Lines of OpenSSH's public key files and ``allowed_signers`` files. Text only, no keys.

A line is ``TYPE BASE64 [COMMENT]``, or, in an ``allowed_signers`` file,
``PRINCIPALS [OPTIONS] TYPE BASE64 [COMMENT]``. Of the options ``namespaces``, ``valid-after`` and
``valid-before`` are kept to, as ssh-keygen keeps to them; a line with any other, such as
``cert-authority``, or with one of them twice, is refused, because to skip what an option asks for
is to trust more than was meant. Principals are text that tells people whose key it is; patterns
among them are not matched with anything.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from auditkit.errors import KeyFileError
from auditkit.formats.quote import brief

#: OpenSSH namespace that an ``allowed_signers`` line must allow, where it names any.
NAMESPACE = "auditkit"

_OPTIONS = ("namespaces", "valid-after", "valid-before")
_KEY_TYPE = re.compile(r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-[A-Za-z0-9@.-]+", re.ASCII)
# tokens divided by blanks; a quoted part may hold blanks
_TOKEN = re.compile(r'(?:"[^"]*"|[^\s"])+')
_OPTION = re.compile(r'([A-Za-z-]+)(?:="([^"]*)")?(?:,|$)', re.ASCII)


@dataclass(frozen=True)
class SignerLine:
    """One line.

    Attributes:
        key_type: OpenSSH's name of the kind of key.
        key: Type and base64: what OpenSSH calls a public key.
        principals: Whose key it is, by whoever wrote the file; empty in a public key file, and
            where all of them are negated, which says only whose it is not.
        options: By name in lower case, checked.
    """

    key_type: str
    key: str
    principals: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)


def parse_line(line: str, *, where: str) -> SignerLine | None:
    """Read a line.

    Args:
        line: Its text.
        where: File and line number, for error messages.

    Returns:
        What it says; None for a comment or an empty line.

    Raises:
        KeyFileError: When it has no key, or options that are not kept to.
    """
    tokens = _TOKEN.findall(line)
    if not tokens or tokens[0].startswith("#"):
        return None
    at = next((n for n, token in enumerate(tokens[:3]) if _KEY_TYPE.fullmatch(token)), None)
    if at is None or len(tokens) < at + 2:
        raise KeyFileError(f"no key in {brief(line.strip(), 40)}", where=where)
    principals = list(filter(None, tokens[0].replace('"', "").split(","))) if at else []
    if all(name.startswith("!") for name in principals):
        principals = []
    options = _options(tokens[1], where) if at == 2 else {}
    key = f"{tokens[at]} {tokens[at + 1]}"
    return SignerLine(tokens[at], key, tuple(principals), options)


def applies(line: SignerLine, now: datetime, *, where: str) -> bool:
    """Whether a line lets its key sign for :data:`NAMESPACE` at this time.

    Raises:
        KeyFileError: When an option's time is none.
    """
    options = line.options
    if not _matches(NAMESPACE, options.get("namespaces", NAMESPACE)):
        return False
    if "valid-after" in options and now < _time(options["valid-after"], where):
        return False
    return not ("valid-before" in options and now >= _time(options["valid-before"], where))


def _matches(text: str, patterns: str) -> bool:
    """OpenSSH's ``match_pattern_list``: any pattern matches, and no negated one does."""
    found = False
    for pattern in patterns.split(","):
        # of fnmatch's specials OpenSSH knows * and ? only
        plain = pattern.removeprefix("!").replace("[", "[[]")
        if fnmatch.fnmatchcase(text, plain):
            if pattern.startswith("!"):
                return False
            found = True
    return found


def _options(text: str, where: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _OPTION.match(text, position)
        if match is None or match[1].lower() not in _OPTIONS:
            raise KeyFileError(f"unsupported option in {brief(text)}", where=where)
        name = match[1].lower()
        if name in found:  # ssh-keygen refuses it too
            raise KeyFileError(f"the option {name} is given twice", where=where)
        found[name] = match[2] or ""
        position = match.end()
    return found


def _time(text: str, where: str) -> datetime:
    """A time as OpenSSH writes it: YYYYMMDD[HHMM[SS]], local unless it ends in Z."""
    formats = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
    digits = text.removesuffix("Z")
    try:
        time = datetime.strptime(digits, formats[len(digits)])
        return time.replace(tzinfo=UTC) if text.endswith("Z") else time.astimezone()
    except (KeyError, ValueError, OverflowError):
        raise KeyFileError(f"{brief(text)} is no time", where=where) from None
