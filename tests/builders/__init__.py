"""Builders of test images: they write files directly, with no loop devices, mounts or root."""
