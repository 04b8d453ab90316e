"""The words for disk images that are files in a file system of the evidence.

Decoded from a hostile guest, like everything in appliance/layer.py. Paths in `ImageFacts` are
escaped as in addresses (images/quoting.py); `NestedImage.path` is plain text.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from appliance.bounds import check_bytes, check_list, check_text


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A file that belongs to an image: its path in the file system, its size in bytes."""

    path: str
    size: int

    def __post_init__(self) -> None:
        check_text(self.path)
        check_bytes(self.size)


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What an image that was opened is: its format, those of what it stands on, and all files."""

    format: str
    chain: list[str] = field(default_factory=list)
    files: list[ImageFile] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_text(self.format, *self.chain)
        check_list(self.chain)
        check_list(self.files)


@dataclass(frozen=True, slots=True)
class NestedImage:
    """A file that by its content is a disk image, in the file system on `layer`.

    `address` is what --open takes. Where the path's bytes are not valid UTF-8, `path_base64` holds
    them exactly and `path` replaces the invalid ones by U+FFFD. `content` is what libblkid calls
    the content of a raw image. `virtual_size` is what the header says, unchecked; sizes in bytes.
    """

    layer: str
    address: str
    path: str
    path_base64: str | None
    format: str
    content: str | None
    virtual_size: int | None
    file_size: int
    allocated_size: int

    def __post_init__(self) -> None:
        check_text(self.layer, self.path, self.path_base64, self.format, self.content)
        check_text(self.address)
        check_bytes(self.virtual_size, self.file_size, self.allocated_size)
