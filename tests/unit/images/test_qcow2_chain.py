"""qcow2 images on others, in each way that qemu-img makes them: the content is what it sees."""

from __future__ import annotations

import gzip
import lzma
import random
from pathlib import Path

import pytest

from images.detect import Format
from images.errors import Locked, MalformedImage, PolicyViolation, Unsupported
from images.graph import READERS
from tests.builders.locked import make_locked
from tests.builders.qcow2 import Qcow2, patched

from .conftest import MIB
from .test_chain import Opened, chain_of, content, qemu_img, trusted, write

SIZE = 4 * MIB


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.raw"
    path.write_bytes(random.Random(7).randbytes(SIZE))
    return path


def overlay(base: Path, form: str, *options: str) -> Path:
    """An image over `base` with data of its own, zeroes of its own, and what shines through."""
    top = base.with_name(f"over-{base.name}")
    qemu_img("create", "-q", "-f", "qcow2", *options, "-b", base, "-F", form, top)
    write(top, "qcow2", "write -P 1 100k 200k", "write -z 1M 128k", "write -P 2 3M 1000")
    return top


FORMS = ("qcow2", "qcow", "qed", "vmdk", "vdi", "vhdx", "vpc")


@pytest.mark.parametrize("form", FORMS)
def test_on_every_format(form: str, base: Path, opened: Opened, run_folder: Path) -> None:
    below = base.with_name(f"base.{form}")
    options = ("-o", "force_size=on") if form == "vpc" else ()
    qemu_img("convert", "-f", "raw", "-O", form, *options, base, below)
    top = overlay(below, form)
    image = opened(top)
    assert [link.path for link in image.chain] == [top, below]
    assert image.notes == ()
    assert content(image, run_folder) == trusted(top, "qcow2")


OPTIONS = {
    "v2": ("-o", "compat=0.10"),
    "small clusters": ("-o", "cluster_size=512"),
    "large clusters": ("-o", "cluster_size=2M"),
    "extended L2": ("-o", "extended_l2=on"),
    "zstd": ("-o", "compression_type=zstd"),
    "narrow refcounts": ("-o", "refcount_bits=1"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(name: str, base: Path, opened: Opened, run_folder: Path) -> None:
    below = overlay(base, "raw", *OPTIONS[name])
    top = overlay(below, "qcow2", *OPTIONS[name])
    assert content(opened(top), run_folder) == trusted(top, "qcow2")


def test_subclusters_over_a_base(base: Path, opened: Opened, run_folder: Path) -> None:
    top = base.with_name("top")
    qemu_img("create", "-q", "-f", "qcow2", "-o", "extended_l2=on", "-b", base, "-F", "raw", top)
    write(top, "qcow2", *(f"write -P {n} {n * 70}k 3k" for n in range(1, 40)), "write -z 1M 2k")
    assert content(opened(top), run_folder) == trusted(top, "qcow2")


@pytest.mark.parametrize("kind", ["zlib", "zstd"])
def test_compressed_over_a_base(kind: str, base: Path, opened: Opened, run_folder: Path) -> None:
    other = base.with_name("other.raw")
    other.write_bytes(base.read_bytes()[: 3 * MIB] + b"text" * (MIB // 4))
    top = base.with_name("top")
    words = ("-c", "-o", f"compression_type={kind}", "-B", base, "-F", "raw")
    qemu_img("convert", "-f", "raw", "-O", "qcow2", *words, other, top)
    write(top, "qcow2", "write -P 4 64k 64k")
    after = bytearray(other.read_bytes())
    after[64 << 10 : 128 << 10] = b"\4" * (64 << 10)
    assert content(opened(top), run_folder) == after == trusted(top, "qcow2")


@pytest.mark.parametrize(("below", "above"), [("2M", "8M"), ("8M", "3M"), ("1000k", "1M")])
def test_sizes_that_differ_in_the_middle(
    below: str, above: str, base: Path, opened: Opened, run_folder: Path
) -> None:
    """What a smaller image in the middle hides stays hidden, also under a larger one."""
    middle, top = base.with_name("middle"), base.with_name("top")
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", middle, below)
    qemu_img("create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top, above)
    write(top, "qcow2", "write -P 9 500k 10k")
    assert content(opened(top), run_folder) == trusted(top, "qcow2")


@pytest.mark.parametrize("form", ["raw", "qcow2", "vmdk"])
def test_without_a_backing_format(form: str, base: Path, opened: Opened, run_folder: Path) -> None:
    """As qemu-img before 2021 made them: the content tells the format, and a note says so."""
    below = base.with_name("below")
    qemu_img("convert", "-f", "raw", "-O", form, base, below)
    top = base.with_name("top")
    top.write_bytes(Qcow2(SIZE, backing=b"below", clusters={3: b"own" * 1000}).build())
    image = opened(top)
    assert image.chain[1].format == form
    assert image.notes == (
        f"it does not say which format its backing file has; by its content it is {form}",
    )
    expected = bytearray(base.read_bytes())
    expected[3 * 65536 : 4 * 65536] = (b"own" * 1000).ljust(65536, b"\0")
    assert content(image, run_folder) == expected


@pytest.mark.parametrize("raw", ["on", "off"])
def test_data_file_in_a_chain(raw: str, base: Path, opened: Opened, run_folder: Path) -> None:
    folder = base.parent
    middle, top = folder / "middle", folder / "top"
    options = f"data_file={folder / 'data'},data_file_raw={raw}"
    # QEMU allows no backing file where the data file is the disk.
    below = () if raw == "on" else ("-b", base, "-F", "raw")
    qemu_img("create", "-q", "-f", "qcow2", "-o", options, *below, middle, "4M")
    write(middle, "qcow2", "write -P 5 1M 300k", "write -P 6 3M 1M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", top)
    write(top, "qcow2", "write -P 7 1100k 10k")
    image = opened(top)
    names = ["top", "middle", "data", *(["base.raw"] if below else [])]
    assert [link.path.name for link in image.chain] == names
    assert image.chain[2].format is Format.RAW
    assert content(image, run_folder) == trusted(top, "qcow2")


def test_data_file_is_raw_though_it_looks_like_an_image(
    base: Path, opened: Opened, run_folder: Path
) -> None:
    """The guest wrote a qcow2 with a backing file to its disk, which is the data file."""
    inner = Qcow2(MIB, backing=b"base.raw", backing_format=b"raw").build()
    base.with_name("data").write_bytes(inner.ljust(MIB, b"\0"))
    every = dict.fromkeys(range(16), b"")
    top = base.with_name("top")
    top.write_bytes(Qcow2(MIB, data_file=b"data", data_file_is_raw=True, clusters=every).build())
    image = opened(top)
    assert [file.path.name for file in image.files] == ["top", "data"]
    assert content(image, run_folder) == inner.ljust(MIB, b"\0")


def test_as_deep_as_allowed(tmp_path: Path, opened: Opened, run_folder: Path) -> None:
    top = chain_of(64, tmp_path)
    for number in (0, 1, 31, 63):
        write(tmp_path / str(number), "qcow2", f"write -P {number + 1} {number * 8}k 64k")
    image = opened(top)
    assert len(image.files) == 64
    assert content(image, run_folder) == trusted(top, "qcow2")
    over = tmp_path / "over"
    over.write_bytes(Qcow2(MIB, backing=top.name.encode(), backing_format=b"qcow2").build())
    with pytest.raises(PolicyViolation, match="more than 64"):
        opened(over)


@pytest.fixture(scope="module")
def luks(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("luks") / "image"
    make_locked(path, "passphrase")
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["top", "backing"])
def test_encrypted_is_recognised(
    kind: str, luks: bytes, tmp_path: Path, opened: Opened, run_folder
) -> None:
    path = tmp_path / "luks"
    path.write_bytes(luks)
    if kind == "backing":
        top = tmp_path / "top"
        top.write_bytes(Qcow2(MIB, backing=b"luks", backing_format=b"qcow2").build())
    image = opened(path if kind == "top" else top)
    assert image.chain[-1].details.encryption == "luks"
    assert image.chain[-1].node.encryption == "luks"
    with pytest.raises(Locked, match="no key was given") as failure:
        content(image, run_folder)
    assert "--key" in failure.value.hint


@pytest.mark.parametrize(
    "form", ["nbd", "luks", "parallels", "blkdebug", "\x1b[31m", "RAW", "x" * 99]
)
def test_backing_formats_that_are_not_known(form: str, base: Path, opened: Opened) -> None:
    top = base.with_name("top")
    name = base.name.encode()
    top.write_bytes(Qcow2(SIZE, backing=name, backing_format=form.encode()).build())
    with pytest.raises(Unsupported, match="not known") as failure:
        opened(top)
    assert str(failure.value).isprintable()


def test_backing_format_that_is_not_true(base: Path, opened: Opened) -> None:
    top = base.with_name("top")
    for form in (b"qcow2", b"vmdk", b"qed", b"vhdx"):
        top.write_bytes(Qcow2(SIZE, backing=b"base.raw", backing_format=form).build())
        with pytest.raises(MalformedImage, match=r"base\.raw"):
            opened(top)


@pytest.mark.parametrize("kind", ["gzip", "xz", "ewf"])
def test_what_only_our_reader_knows_carries_nothing(kind: str, base: Path, opened: Opened) -> None:
    """QEMU cannot stand on it: refused when it is opened, not when it is to be served."""
    small = base.read_bytes()[:65536]
    data = {
        "gzip": gzip.compress(small),
        "xz": lzma.compress(small),
        "ewf": b"EVF\x09\x0d\x0a\xff\x00".ljust(4096, b"\0"),
    }
    base.with_name("packed").write_bytes(data[kind])
    top = base.with_name("top")
    top.write_bytes(Qcow2(SIZE, backing=b"packed").build())
    with pytest.raises((Unsupported, MalformedImage), match="packed") as failure:
        opened(top)
    assert kind == "ewf" or "backing file of another" in str(failure.value)
    assert f"reader:{kind}" in READERS


def test_marked_dirty_or_corrupt_below(base: Path, opened: Opened) -> None:
    below, top = base.with_name("below"), base.with_name("top")
    below.write_bytes(patched(Qcow2(SIZE).build(), {"incompatible": 3}))
    top.write_bytes(Qcow2(SIZE, backing=b"below", backing_format=b"qcow2").build())
    assert [note.startswith(f"{below}: the image") for note in opened(top).notes] == [True, True]
