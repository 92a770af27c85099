"""Perturbations: one named change at t0 a file, and their registry."""
