"""Keys, envelopes, trust and time stamps: who signed these bytes, and who is believed.

For a reader: ``allowed_signers`` and ``keys`` (kinds and text forms), ``envelopes`` (DSSE),
``trust`` (key files, and the keys of this machine), ``signatures`` (the judgement), ``der`` and
``timestamps`` (RFC 3161), ``sigstore_bundle``.
"""

from auditkit.signing.envelopes import sign_statement
from auditkit.signing.trust import load_private_key

__all__ = ["load_private_key", "sign_statement"]
