"""Buckets of files while somebody renames, links and writes in their folders."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from visaged.daemon.api.aliyun_oss import files as module
from visaged.daemon.api.aliyun_oss.beneath import open_beneath
from visaged.daemon.api.aliyun_oss.errors import OssError
from visaged.daemon.api.aliyun_oss.files import FileBucket, FolderBucket

INSIDE, OUTSIDE = b"inside", b"secret of somebody else"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A bucket's folder, beside one that has the same names in it."""
    for name, data in (("bucket", INSIDE), ("outside", OUTSIDE)):
        (tmp_path / name / "sub" / "deep").mkdir(parents=True)
        for place in ("file.txt", "sub/file.txt", "sub/deep/file.txt"):
            (tmp_path / name / place).write_bytes(data)
    return tmp_path / "bucket"


def read(bucket: FileBucket, key: str) -> bytes:
    with closing(bucket.open(key)) as stored:
        return b"".join(stored.read(0, stored.meta.size))


def code(bucket: FileBucket, key: str) -> str:
    with pytest.raises(OssError) as caught:
        bucket.open(key).close()
    return caught.value.code


@contextlib.contextmanager
def kept_swapping(place: Path, other: Path) -> Iterator[None]:
    """Swaps `place` with `other` for ever in a thread, so that either stands there at any moment, or nothing."""
    over = threading.Event()
    aside = place.with_name("aside")

    def swap() -> None:
        while not over.is_set():
            place.rename(aside)
            other.rename(place)
            place.rename(other)
            aside.rename(place)

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    ("swapped", "target"), [("sub", "sub"), ("sub/deep", "sub/deep"), ("sub/deep/file.txt", "file.txt")]
)
@pytest.mark.parametrize("is_absolute", [True, False])
def test_nothing_from_outside_while_a_part_is_swapped_with_a_link(
    folder: Path, swapped: str, target: str, is_absolute: bool
) -> None:
    bucket, place = FolderBucket(folder), folder / swapped
    link = place.with_name("link")
    outside = folder.parent / "outside" / target
    link.symlink_to(outside if is_absolute else os.path.relpath(outside, place.parent))
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    seen = set()
    with kept_swapping(place, link):
        for _ in range(1500):
            with contextlib.suppress(OssError):
                seen.add(read(bucket, "sub/deep/file.txt"))
    assert seen == {INSIDE}
    assert read(bucket, "sub/deep/file.txt") == INSIDE
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_links_that_stay_in_the_folder_are_followed(folder: Path) -> None:
    (folder / "relative").symlink_to("sub/../sub/deep")
    (folder / "absolute").symlink_to(folder / "sub")
    (folder / "sub" / "back.txt").symlink_to("../relative/file.txt")
    (folder / "whole").symlink_to(folder)
    bucket = FolderBucket(folder)
    for key in ("relative/file.txt", "absolute/deep/file.txt", "sub/back.txt", "whole/whole/absolute/back.txt"):
        assert read(bucket, key) == INSIDE


def test_the_folder_itself_may_be_a_link_that_changes(folder: Path) -> None:
    link = folder.parent / "current"
    link.symlink_to("bucket")
    (folder / "absolute").symlink_to(folder / "sub")
    bucket = FolderBucket(link)
    assert read(bucket, "sub/file.txt") == read(bucket, "absolute/file.txt") == INSIDE
    link.unlink()
    link.symlink_to("outside")
    assert read(bucket, "sub/file.txt") == OUTSIDE


@pytest.mark.parametrize(
    "target",
    [
        "..", "../outside", "../bucket/sub", "sub/../../bucket/sub", "{outside}", "{bucket}/../outside", "/",
        "loop", ".hidden", "sub/.hidden", "/proc/self/cwd", "",
    ],
)  # fmt: skip
def test_links_that_leave_the_folder_do_not_exist(folder: Path, target: str) -> None:
    hidden = folder / "sub" / ".hidden"
    hidden.mkdir()
    (hidden / "file.txt").write_bytes(OUTSIDE)
    (folder / "loop").symlink_to("loop")
    (folder / ".hidden").symlink_to("sub/.hidden")
    if target:
        (folder / "way").symlink_to(target.format(outside=folder.parent / "outside", bucket=folder))
    bucket = FolderBucket(folder)
    for key in ("way", "way/file.txt", "way/sub/file.txt", "way/bucket/file.txt"):
        assert code(bucket, key) == "NoSuchKey"


def test_long_chains_of_links_end(folder: Path) -> None:
    (folder / "link-0").symlink_to("sub")
    for number in range(1, 60):
        (folder / f"link-{number}").symlink_to(f"link-{number - 1}")
    bucket = FolderBucket(folder)
    assert read(bucket, "link-30/file.txt") == INSIDE
    assert code(bucket, "link-59/file.txt") == "NoSuchKey"


def test_what_is_no_file_is_not_opened(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    # The names of sockets are short.
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(folder):
        server.bind("socket")
        (folder / "link").symlink_to("pipe")
        (folder / "null").symlink_to("/dev/null")
        bucket = FolderBucket(folder)
        for key in ("pipe", "socket", "link", "null", "sub", "sub/deep"):
            assert code(bucket, key) == "NoSuchKey"
    paths = {"pipe": folder / "pipe", "null": Path("/dev/null"), "sub": folder / "sub", "gone": folder / "x"}
    listed = FileBucket(paths)
    for key in ("pipe", "null", "sub", "gone", "other"):
        assert code(listed, key) == "NoSuchKey"


def test_a_pipe_that_comes_while_the_file_is_opened(folder: Path) -> None:
    """A writer that waits for a reader would be set free by a reader, and a reader would wait for a writer."""
    os.mkfifo(folder / "pipe")
    bucket = FolderBucket(folder)
    with kept_swapping(folder / "file.txt", folder / "pipe"):
        for _ in range(1000):
            with contextlib.suppress(OssError):
                assert read(bucket, "file.txt") == INSIDE


def test_a_hard_link_is_a_file_of_the_folder(folder: Path) -> None:
    (folder / "hard.txt").hardlink_to(folder.parent / "outside" / "file.txt")
    assert read(FolderBucket(folder), "hard.txt") == OUTSIDE


def test_files_that_grow_and_shrink_while_they_are_sent(folder: Path) -> None:
    path = folder / "file.txt"
    path.write_bytes(bytes(1_000_000))
    bucket = FolderBucket(folder)
    with closing(bucket.open("file.txt")) as stored, path.open("ab") as file:
        file.write(bytes(1_000_000))
        file.flush()
        assert sum(map(len, stored.read(0, stored.meta.size))) == stored.meta.size == 1_000_000
    with closing(bucket.open("file.txt")) as stored:
        chunks = stored.read(0, stored.meta.size)
        sent = len(next(chunks))
        os.truncate(path, sent)
        assert list(chunks) == []


def test_the_tag_of_a_file_that_changes_while_it_is_read_is_no_digest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder / "file.txt"
    whole = module._identity
    count = itertools.count()

    def changing(status: os.stat_result) -> module._Identity:
        if next(count) == 0:  # between the first look and the reading
            with path.open("ab") as file:
                file.write(b" and more")
        return whole(status)

    monkeypatch.setattr(module, "_identity", changing)
    bucket = FolderBucket(folder)
    before = bucket.head("file.txt")
    assert (before.object_type, before.size) == ("Multipart", len(INSIDE))
    after = bucket.head("file.txt")
    assert after.object_type == "Normal"
    assert after.etag.strip('"') == hashlib.md5(INSIDE + b" and more").hexdigest().upper()


@pytest.mark.parametrize("part", ["/etc/passwd", "a/../../out", "sub//x"])
def test_a_part_with_a_slash_is_no_name(tmp_path: Path, part: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").write_text("")
    with pytest.raises(FileNotFoundError):
        open_beneath(tmp_path, [part])
