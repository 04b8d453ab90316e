"""Measures `forensic` beside libguestfs in one run: `python -m tests.bench`, or `make bench`.

docs/performance.md says what is measured and why it is measured that way.
"""
