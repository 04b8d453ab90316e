"""Why an image was refused. Every one of these ends the command with exit code 3."""

from __future__ import annotations

from pathlib import Path

from images.quoting import shown


class ImageError(Exception):
    """An image was refused; `str()` names the file and the reason, `hint` the next step."""

    def __init__(self, message: str, *, path: Path, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.path = path
        self.hint = hint

    def __str__(self) -> str:
        return f"{shown(str(self.path))}: {self.message}"


class Unreadable(ImageError):
    """Missing, not permitted, empty, or not a regular file."""


class MalformedImage(ImageError):
    """Truncated, or a header that contradicts itself or the file."""


class Ambiguous(ImageError):
    """The content matches more than one format."""


class PolicyViolation(ImageError):
    """The image names other files or devices that it may not have."""


class Unsupported(ImageError):
    """A known thing that this version does not open."""


class Locked(ImageError):
    """It is encrypted, and no key that was given opens it."""


class ExportFailed(ImageError):
    """The sandboxed exporter did not start, refused the image, or crashed on it."""


class SandboxFailed(ExportFailed):
    """The sandbox of the exporter did not start: the host is at fault, not the image."""
