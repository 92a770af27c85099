"""Order perturbations change no state; what they deliver: :mod:`auditkit.formats.ordering`."""

from __future__ import annotations

from auditkit.perturbations.carry import Carry
from auditkit.records.perturbation import DECLARATIONS


class OrderReverse(Carry):
    """The window's samples in reverse order."""

    declaration = DECLARATIONS["order-reverse"]


class OrderShuffle(Carry):
    """The window's samples in an order drawn from (seed, ``draw``)."""

    declaration = DECLARATIONS["order-shuffle"]


class OrderSwap(Carry):
    """The window's first and second half exchanged."""

    declaration = DECLARATIONS["order-swap"]
