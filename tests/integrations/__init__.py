"""Tests against the real libraries."""
