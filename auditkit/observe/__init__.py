"""Wraps live torch objects and yields records. Nothing here changes what training computes."""
