"""The command line: parse, call one function, print, exit. Nothing else prints or exits."""

from __future__ import annotations

from auditkit.cli.group import main

__all__ = ["main"]
