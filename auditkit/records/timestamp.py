"""What a third party's time stamp says, once it is verified."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Timestamp:
    """An RFC 3161 time stamp of a signature, signed by an authority that the verifier trusts.

    Attributes:
        time: When the authority saw the signature, by its own clock: ISO 8601, UTC. What was
            signed is at least this old.
        authority: The subject of its certificate, as RFC 4514 writes a name.
        serial: The authority's number of the stamp, in decimals.
        policy: The object identifier of the policy that it was issued under.
    """

    time: str
    authority: str
    serial: str
    policy: str
