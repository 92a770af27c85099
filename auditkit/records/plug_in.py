"""A perturbation of an installed package: where its code came from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PlugIn:
    """What a study was perturbed by that is neither auditkit's nor the program's own.

    Attributes:
        name: The perturbation.
        distribution: The installed distribution that registers it; empty where it says none.
        version: Of that distribution.
        module: The module that its class is in.
        sha256: Digest of that module's source; None where there is no source.
    """

    name: str
    distribution: str
    version: str
    module: str
    sha256: str | None

    def differences(self, here: PlugIn | None) -> str:
        """What is another here, as a line; empty where nothing is."""
        if here == self:
            return ""
        if here is None:
            return f"the plug-in {self.name} of {self.distribution} is not installed here"
        if self.sha256 != here.sha256:
            what = f"another source of {self.module}"
        else:
            what = f"{here.distribution} {here.version}, {here.module}"
        there = f"{self.distribution} {self.version}, {self.module}"
        return f"the plug-in {self.name} was of {there}; here it is {what}"
