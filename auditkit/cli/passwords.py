"""Passwords of keys: asked for where a terminal can ask, and never an option of a command line.

Whatever stands on a command line is seen by every process of the machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TypeVar

import click

from auditkit.cli.saying import say
from auditkit.errors import KeyEncrypted, UsageError
from auditkit.formats.quote import printable
from auditkit.signing.trust import PASSWORD_VARIABLE, SigningKey, signing_key

T = TypeVar("T")


def signing_key_of(option: str | None) -> SigningKey:
    """The key to sign with, its password asked for; says so where it was made just now.

    Args:
        option: What ``--key`` was given.

    Raises:
        KeyFileError: When it cannot be read, or is encrypted and nobody can be asked.
        StoreError: When the machine's own key cannot be written.
    """
    signer = unlocking(lambda password: signing_key(option, password=password))
    if signer.created:
        say(f"made a signing key, {signer.fingerprint}, in {signer.source}; this machine trusts it")
    return signer


def unlocking(load: Callable[[str | None], T]) -> T:
    """Load a key; where that needs a password and there is a terminal, ask for it, once."""
    try:
        return load(None)
    except KeyEncrypted as error:
        if not at_terminal():
            raise
        question = f"password of {printable(error.where or 'the key')}"
    return load(click.prompt(question, hide_input=True, err=True))


def new_password() -> str:
    """The password for a new key: ``$AUDITKIT_KEY_PASSWORD``, else asked for twice.

    Raises:
        UsageError: When there is neither.
    """
    given = os.environ.get(PASSWORD_VARIABLE)
    if given:
        return given
    if not at_terminal():
        raise UsageError(
            "no password to encrypt the key with",
            hint=f"where no terminal can ask, ${PASSWORD_VARIABLE} holds it",
        )
    answer: str = click.prompt(
        "password of the new key", hide_input=True, confirmation_prompt=True, err=True
    )
    return answer


def at_terminal() -> bool:
    """Whether somebody can be asked."""
    return sys.stdin is not None and sys.stdin.isatty()
