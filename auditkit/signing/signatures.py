"""Judging the signatures of an envelope.

Rules that it keeps:

* a ``keyid`` is a hint and decides nothing: every trusted key is tried on every signature. It only
  tells *tampered* (it names a trusted key, yet the signature is not that key's) from *untrusted*;
* a key counts once, however often it signed and by however many names it is trusted;
* a person counts once: keys that share a principal, be it by way of a third key that has principals
  of both, are one person's; a key without principals is a person of its own;
* no key in the manifest, or beside it, is ever trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from auditkit.errors import NotSigned, NotTrusted, SignatureError, UsageError
from auditkit.signing.envelopes import Envelope, pae
from auditkit.signing.keys import TrustedKey, is_fingerprint, verifies


@dataclass(frozen=True)
class SignatureOutcome:
    """Who signed.

    Attributes:
        signers: The trusted keys that signed, in the order in which trust was given; at least one.
        untrusted: Fingerprints that other signatures give for themselves.
    """

    signers: tuple[TrustedKey, ...]
    untrusted: tuple[str, ...] = ()

    @property
    def signer(self) -> TrustedKey:
        """The first trusted key that signed."""
        return self.signers[0]


def check_signatures(
    envelope: Envelope,
    trusted: Sequence[TrustedKey],
    threshold: int = 1,
    given: Sequence[str] = (),
) -> SignatureOutcome:
    """Judge an envelope's signatures.

    Args:
        envelope: As :func:`open_envelope` gave it.
        trusted: The keys that the verifier trusts; the first to have signed is *the* signer.
        threshold: How many different people among them must have signed; see the rules above.
        given: Fingerprints that the verifier gave, to say so where they are those of others.

    Returns:
        Who signed.

    Raises:
        UsageError: When the threshold is below 1, since nothing verified is no success.
        NotSigned: When there is no signature.
        SignatureError: When a signature gives a trusted key's name and is not that key's for
            these bytes, even where enough other signatures are good.
        NotTrusted: When fewer trusted people than ``threshold`` signed.
    """
    if threshold < 1:
        raise UsageError(f"at least 1 signature must be asked for, not {threshold}")
    if not envelope.signatures:
        raise NotSigned("it carries no signature")
    message = pae(envelope.payload, envelope.payload_type)
    keys = _distinct(trusted)
    signed: set[str] = set()
    untrusted: list[str] = []
    for signature in envelope.signatures:
        by = [k.fingerprint for k in keys if verifies(k.public_key, signature.value, message)]
        signed.update(by)
        if not by and any(signature.keyid == key.fingerprint for key in keys):
            raise SignatureError(f"the signature by {signature.keyid} does not match the payload")
        if not by:
            untrusted.append(_claimed(signature.keyid))
    signers = tuple(key for key in keys if key.fingerprint in signed)
    whose = _people(keys)
    people = len({whose[key.fingerprint] for key in signers})
    if people < threshold:
        if not signers and given and not set(given) & set(untrusted):
            raise _not_given(given, untrusted)
        raise _too_few(signers, people, untrusted, threshold)
    return SignatureOutcome(signers, tuple(untrusted))


def _distinct(trusted: Sequence[TrustedKey]) -> list[TrustedKey]:
    """Every key once: as it was trusted first, with all its names."""
    found: dict[str, TrustedKey] = {}
    for key in trusted:
        first = found.get(key.fingerprint, key)
        names = tuple(dict.fromkeys((*first.principals, *key.principals)))
        found[key.fingerprint] = replace(first, own=first.own or key.own, principals=names)
    return list(found.values())


def others_than(
    authors: Sequence[TrustedKey], keys: Sequence[TrustedKey], trusted: Sequence[TrustedKey]
) -> list[TrustedKey]:
    """Those of some trusted keys that are of somebody else than the authors.

    Args:
        authors: Trusted keys.
        keys: Trusted keys.
        trusted: All that are trusted: they tell who is who.
    """
    people = _people(trusted)
    known = {people[author.fingerprint] for author in authors}
    return [key for key in keys if people[key.fingerprint] not in known]


def _people(trusted: Sequence[TrustedKey]) -> dict[str, int]:
    """A number for every key, the same for all keys of one person."""
    known: dict[str, set[str]] = {}
    for key in trusted:
        people = [known.setdefault(name, {name}) for name in key.identities]
        person = max(people, key=len)
        for other in people:
            if other is not person:
                person |= other
                known.update(dict.fromkeys(other, person))
    return {key.fingerprint: id(known[key.fingerprint]) for key in trusted}


def _not_given(given: Sequence[str], untrusted: Sequence[str]) -> NotTrusted:
    one = "the fingerprint that you gave is not that"
    return NotTrusted(
        f"{one if len(given) == 1 else 'no fingerprint that you gave is that'} of the key that "
        "signed",
        expected=", ".join(given),
        found=", ".join(untrusted),
        hint="ask the author again, or this is not their run",
    )


def _too_few(
    signers: Sequence[TrustedKey], people: int, untrusted: Sequence[str], threshold: int
) -> NotTrusted:
    hint = (
        "if it is the author's, give --fingerprint as the author published it, or the key's file "
        "(verify --key, replay --trust)"
    )
    if not signers and threshold == 1:
        return NotTrusted(
            f"signed by {', '.join(untrusted)}, which is not a trusted key", hint=hint
        )
    by = f" ({', '.join(key.label for key in signers)})" if signers else ""
    others = f"; signed also by {', '.join(untrusted)}, not trusted" if untrusted else ""
    if people < len(signers):
        by += f", which share principals and count as {people},"
    return NotTrusted(
        f"signed by {len(signers)} trusted key(s){by} of the {threshold} that are needed{others}"
    )


def _claimed(keyid: str | None) -> str:
    """A keyid fit to be printed: it is text from the file."""
    return keyid if keyid and is_fingerprint(keyid) else "a key without fingerprint"
