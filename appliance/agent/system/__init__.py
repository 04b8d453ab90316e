"""Finds the operating systems on the file systems of a mapping, and reads what they say of
themselves. Files of the evidence are read as data; nothing of it is ever run."""
