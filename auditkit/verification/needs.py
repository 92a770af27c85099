"""What a verification lacks that was refused for want of trust, consent or data: all of it at once.

Nothing here decides anything: the checks do. What they refuse one after the other, a reader wants
to be told in one go.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from auditkit.errors import AuditError
from auditkit.files.given_paths import is_missing
from auditkit.formats.quote import brief
from auditkit.records.manifest import SIGNER_NAME, StudyManifest
from auditkit.records.opened import some_names
from auditkit.records.report import Need
from auditkit.signing.envelopes import Envelope
from auditkit.signing.keys import TrustedKey, is_fingerprint
from auditkit.signing.trust import key_by_fingerprint

#: Exit codes of what more options may mend: no trusted key, and cannot decide.
MENDABLE = (3, 6)


def claimed_fingerprints(envelope: Envelope, trusted: Sequence[TrustedKey]) -> list[str]:
    """Fingerprints that signatures give for themselves, of keys that are not trusted."""
    known = {key.fingerprint for key in trusted}
    claimed = [signature.keyid or "" for signature in envelope.signatures]
    return [name for name in dict.fromkeys(claimed) if is_fingerprint(name) and name not in known]


def is_of_another(envelope: Envelope, fingerprints: Sequence[str]) -> bool:
    """Whether one of some fingerprints that were given is of a key that no signature names."""
    return bool(set(fingerprints) - {signature.keyid for signature in envelope.signatures})


def signer_needs(
    folder: Path, claimed: Sequence[str], set_aside: Sequence[str], *, named: bool
) -> Iterator[Need]:
    """The keys without which nothing counts as signed.

    Args:
        folder: The manifest's folder.
        claimed: Of which keys the signatures say that they are.
        set_aside: Fingerprints that this machine trusts, where naming other keys replaced them.
        named: Whether other keys were named.
    """
    others = (
        "none of the keys that you named signed it; give the author's as well, " if named else ""
    )
    for name in claimed:
        lies_here = _lies_beside(folder, name)
        if name in set_aside:
            why = (
                "give the author's key as well: this machine trusts it, but where keys are named "
                "no others count"
            )
        elif lies_here:
            why = (
                f"{others}if the paper, or somebody you trust, gives this very fingerprint: "
                "here it is only what the files say of themselves"
            )
        else:
            why = f"the public key of {name}, from somebody you trust: it does not lie here"
        yield Need(f"--fingerprint {name}" if lies_here else "--key FILE", why)


def replay_needs(
    manifest: StudyManifest, given: Sequence[str], *, allowed: bool, ran: bool = False
) -> Iterator[Need]:
    """What a replay would lack, and where it would look for listed data.

    Args:
        manifest: The study, one of a program that is replayed from its recorded code.
        given: Names of the arguments that the verifier gave.
        allowed: Whether the code may be executed.
        ran: Whether it was: then the program said what of its data it lacked.
    """
    if not allowed:
        why = "once you have read code/: a replay executes it, and somebody else signed it"
        yield Need("--allow-code", why)
    data = _data(manifest)
    for name, value in manifest.program.arguments.items():
        if name in given or not name.isidentifier():
            continue
        # What data were read through is a path for certain.
        if is_missing(value, certain=name in data):
            yield Need(f"--arg {name}=PATH", f"where it lies here: {brief(value, 200)} does not")
        elif name in data and not ran:
            yield _data_need(name, value, data[name])


def _data(manifest: StudyManifest) -> dict[str, list[str]]:
    """Listed data by the argument that they were read through, as paths below its value."""
    found: dict[str, list[str]] = {}
    for file in () if manifest.opened is None else manifest.opened.files:
        kind, _, rest = file.name.partition("/")
        name, _, path = rest.partition("/")
        if kind == "data" and name:
            found.setdefault(name, []).append(path)
    return found


def _data_need(name: str, value: str, paths: Sequence[str]) -> Need:
    """Where data lie, of which at least the folder does lie here."""
    absent = [path for path in paths if path and is_missing(f"{value}/{path}", certain=True)]
    where = brief(value, 200)
    if absent:
        why = f"where its data lie here: {where} is without {some_names(absent)}"
        return Need(f"--arg {name}=PATH", why)
    names = some_names(paths) if any(paths) else "its data"
    why = f"a replay looks there for {names}; give another path if they lie elsewhere here"
    return Need(f"--arg {name}={value}", why)


def lacking_needs(lacking: Sequence[str]) -> Iterator[Need]:
    """What a replay has lacked.

    Args:
        lacking: Options. The program has a say in what is among them, so that one is taken only
            where it says where data lie, or names a variable.
    """
    for option in lacking:
        kind, _, rest = option.partition(" ")
        name, _, value = rest.partition("=")
        if not name.isidentifier():
            continue
        if (kind, value) == ("--arg", "PATH"):
            yield Need(option, "where it lies here: the replay found nothing at what it was given")
        elif option == f"--env {name}":
            yield Need(option, "the program reads this variable, and a replay has few by itself")


def _lies_beside(folder: Path, fingerprint: str) -> bool:
    """Whether the key of a fingerprint can be taken from the folder."""
    try:
        key_by_fingerprint(fingerprint, folder / SIGNER_NAME)
    except AuditError:
        return False
    return True
