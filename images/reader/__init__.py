"""What runs inside the reader's sandbox: E01, gzip and xz as plain bytes of a disk.

Debian's own Python runs it, not the program's virtual environment: the standard library alone.
"""
