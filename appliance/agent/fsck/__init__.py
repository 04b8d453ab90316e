"""Checkers of file systems: one module a type, and `check` that runs them."""
