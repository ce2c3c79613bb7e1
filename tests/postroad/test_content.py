"""Contents: what is put can be had, once stored, checked, and by nothing but its reference."""

import asyncio
import hashlib
from pathlib import Path

import pytest

from postroad.content import ContentMissing, Contents, ContentUnavailable, MemoryContents

BIG = bytes(range(256)) * 200  # 51,200 bytes


def blobs(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture(params=["folder", "file-url", "memory"])
def contents(request: pytest.FixtureRequest, tmp_path: Path) -> Contents:
    folder = tmp_path / "not there yet"
    return {
        "folder": lambda: Contents(str(folder)),
        "file-url": lambda: Contents(folder.as_uri()),
        "memory": MemoryContents,
    }[request.param]()


@pytest.mark.parametrize("size", [0, 1, 32 * 1024, 32 * 1024 + 1, 3 * 1024 * 1024])
async def test_what_was_put_comes_back(contents: Contents, size: int) -> None:
    data = bytes(size)
    content = await contents.put(data)
    assert content["hash"] == hashlib.sha256(data).hexdigest()
    assert content["size"] == size
    assert (content["inline"] is None) == (size > 32 * 1024) == (content["blob"] is not None)
    assert await contents.get(content) == data


async def test_blobs_of_any_size_come_back_by_reference(contents: Contents) -> None:
    for data in (b"", b"short", BIG):
        assert await contents.get_blob(await contents.put_blob(data)) == data


async def test_another_process_finds_the_blob(tmp_path: Path) -> None:
    content = await Contents(str(tmp_path)).put(BIG)
    assert await Contents(str(tmp_path)).get(content) == BIG


async def test_same_content_is_written_once(tmp_path: Path) -> None:
    content = await Contents(str(tmp_path)).put(BIG)
    (path,) = blobs(tmp_path)
    before = path.stat()
    assert await Contents(str(tmp_path)).put(BIG) == content
    assert await Contents(str(tmp_path)).put_blob(BIG) == content["blob"]
    assert blobs(tmp_path) == [path]
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


async def test_a_torn_blob_is_an_error_and_is_repaired_by_the_next_put(tmp_path: Path) -> None:
    content = await Contents(str(tmp_path)).put(BIG)
    (path,) = blobs(tmp_path)
    path.write_bytes(bytes(len(BIG)))
    with pytest.raises(ContentMissing, match="other bytes"):
        await Contents(str(tmp_path)).get(content)
    await Contents(str(tmp_path)).put(BIG)
    assert await Contents(str(tmp_path)).get(content) == BIG


async def test_inline_bytes_are_checked() -> None:
    contents = MemoryContents()
    content = await contents.put(b"short")
    content["inline"] = b"other"
    with pytest.raises(ContentMissing, match="hash"):
        await contents.get(content)


async def test_a_blob_of_another_content_is_refused() -> None:
    contents = MemoryContents()
    content = await contents.put(BIG)
    content["blob"] = await contents.put_blob(b"something else")
    with pytest.raises(ContentMissing):
        await contents.get(content)


@pytest.mark.parametrize(
    "reference",
    [
        "",
        "sha256:",
        "/etc/passwd",
        "../../etc/passwd",
        "file:///etc/passwd",
        "sha256:" + "../" * 20 + "etc/passwd",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 64 + "\n",
        "sha256:" + "a" * 62 + "/b",
        "SHA256:" + "a" * 64,
        "a" * 64,
        "x" * 1_000_000,
        "sha256:" + "٣" * 64,
    ],
)
async def test_hostile_references_name_nothing(tmp_path: Path, reference: str) -> None:
    contents = Contents(str(tmp_path / "store"))
    (tmp_path / "etc").mkdir()
    with pytest.raises(ContentMissing, match="no reference") as raised:
        await contents.get_blob(reference)
    assert len(str(raised.value)) < 300
    assert not raised.value.temporary


async def test_a_blob_that_is_not_there(contents: Contents) -> None:
    with pytest.raises(ContentMissing, match="not in the content store"):
        await contents.get_blob("sha256:" + "a" * 64)


async def test_a_store_that_fails_is_temporary_and_recovers() -> None:
    contents = MemoryContents()
    content = await contents.put(BIG)
    contents.failing = True
    for attempt in (contents.get(content), contents.put(BIG + b"x"), contents.put_blob(b"y")):
        with pytest.raises(ContentUnavailable) as raised:
            await attempt
        assert raised.value.temporary
    assert (await contents.put(b"inline needs no store"))["inline"]
    contents.failing = False
    assert await contents.get(content) == BIG


async def test_a_folder_that_cannot_be_written_is_temporary(tmp_path: Path) -> None:
    contents = Contents(str(tmp_path / "store"))
    (tmp_path / "store" / "blobs").write_text("a file where a folder must be")
    with pytest.raises(ContentUnavailable):
        await contents.put(BIG)


async def test_a_lost_blob_is_missing_for_good() -> None:
    contents = MemoryContents()
    content = await contents.put(BIG)
    assert content["blob"]
    await contents.lose(content["blob"])
    with pytest.raises(ContentMissing):
        await contents.get(content)


async def test_a_thousand_readers_at_once_read_once() -> None:
    contents = MemoryContents()
    content = await contents.put(BIG)
    contents.read = 0
    assert set(await asyncio.gather(*(contents.get(content) for _ in range(1000)))) == {BIG}
    assert contents.read == 1


async def test_one_reader_that_leaves_does_not_take_the_others_with_it() -> None:
    contents = MemoryContents()
    content = await contents.put(BIG)
    leaving, staying = asyncio.create_task(contents.get(content)), asyncio.create_task(contents.get(content))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == BIG


async def test_the_cache_is_bounded_in_bytes(tmp_path: Path) -> None:
    contents = Contents(str(tmp_path), cache_bytes=100_000)
    stored = [await contents.put(bytes([n]) * 40_000) for n in range(4)]
    for path in blobs(tmp_path):
        path.unlink()
    assert await contents.get(stored[3]) == bytes([3]) * 40_000  # cached
    assert await contents.get(stored[2]) == bytes([2]) * 40_000
    with pytest.raises(ContentMissing):
        await contents.get(stored[0])  # pushed out
    large = await contents.put(b"z" * 200_000)
    assert await contents.get(stored[2]) == bytes([2]) * 40_000  # what never fits pushes nothing out
    assert await contents.get(large) == b"z" * 200_000
