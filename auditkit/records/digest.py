"""A digest that carries the recipe that made it."""

from __future__ import annotations

from dataclasses import dataclass

#: Fast recipe of the per-step evidence. It finds drift; it proves nothing, since collisions can
#: be made at will.
EVIDENCE_RECIPE = "xxh3-128/tensor-v1"

#: The other recipe of the evidence: sums that a GPU makes where the state lies, and that can be
#: kept up while a ring buffer is written.
MIX_RECIPE = "int64-mix/1"

#: Recipes that a plan may choose for the state's evidence.
EVIDENCE_RECIPES = (EVIDENCE_RECIPE, MIX_RECIPE)

#: Recipe of everything that a verdict rests on.
COMMITMENT_RECIPE = "sha256/tensor-v1"

#: Bytes of one evidence digest.
EVIDENCE_BYTES = 16

#: The evidence of a component that does not exist yet, and of what the last row consumed.
ABSENT = bytes(EVIDENCE_BYTES)


@dataclass(frozen=True)
class Digest:
    """A digest.

    Attributes:
        recipe: ``ALGORITHM/ENCODING-VERSION``, e.g. ``sha256/tensor-v1``.
        value: Lower-case hexadecimal digits.
    """

    recipe: str
    value: str

    def __str__(self) -> str:
        return f"{self.recipe}:{self.value}"
