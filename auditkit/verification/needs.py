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


def replay_needs(manifest: StudyManifest, given: Sequence[str], *, allowed: bool) -> Iterator[Need]:
    """What a replay would lack.

    Args:
        manifest: The study, one of a program that is replayed from its recorded code.
        given: Names of the arguments that the verifier gave.
        allowed: Whether the code may be executed.
    """
    if not allowed:
        why = "once you have read code/: a replay executes it, and somebody else signed it"
        yield Need("--allow-code", why)
    files = () if manifest.opened is None else manifest.opened.files
    # Data that were read through an argument are named for it: then it is a path for certain.
    paths = {part[1] for file in files if (part := file.name.split("/"))[0] == "data" and part[1:]}
    for name, value in manifest.program.arguments.items():
        lacks = is_missing(value, certain=name in paths)
        if name not in given and name.isidentifier() and lacks:
            yield Need(f"--arg {name}=PATH", f"where it lies here: {brief(value, 200)} does not")


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
