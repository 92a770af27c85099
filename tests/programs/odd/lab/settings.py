"""The numbers of the package."""

WIDTH = 7
