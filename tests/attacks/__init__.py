"""A corpus of attacks on the verifier: each is applied to an honest run and must be caught.

``PYTHONPATH=tests python -m attacks`` makes them all and prints a table.
"""
