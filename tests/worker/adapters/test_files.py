"""Remote adapters: only from allowed places, only what was registered, fetched once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from lorapool.shared import remote
from lorapool.shared.digest import CONFIG_NAME, WEIGHTS_NAME, adapter_digest
from lorapool.shared.errors import AdapterUnavailable, CheckpointError, InvalidRequest
from lorapool.worker.adapters.cache_folder import LEFTOVER_S, CacheFolder
from lorapool.worker.adapters.files import AdapterFiles
from lorapool.worker.engine.adapter_source import AdapterSource

CFO = Path(__file__).parents[3] / "examples" / "adapters" / "cfo"
DIGEST = adapter_digest(CFO)
URI = "memory://bucket/adapters/cfo"
SOURCE = AdapterSource("cfo@1", DIGEST, URI)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """The CFO's adapter in an in-memory store, beside files that nobody asked for."""
    monkeypatch.setitem(remote.SCHEMES, "memory", "fsspec")
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        memory.pipe(f"/bucket/adapters/cfo/{name}", (CFO / name).read_bytes())
    memory.pipe("/bucket/adapters/cfo/setup.py", b"raise SystemExit('run')")
    yield memory
    memory.store.clear()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "adapters"


def files(cache: Path, *, place: str = "memory://bucket/adapters", limit_bytes: int = 1 << 20) -> AdapterFiles:
    return AdapterFiles((), (place,), CacheFolder(cache), limit_bytes)


def folder_of(files: AdapterFiles, source: AdapterSource = SOURCE) -> Path:
    with files.reading(source) as folder:
        return folder


def visible(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.startswith(".lock"))


def test_an_adapter_is_fetched_by_digest(bucket: object, cache: Path) -> None:
    """Config and weights, nothing else, in a folder of its digest's name."""
    folder = folder_of(files(cache))
    assert cache / DIGEST == folder
    assert DIGEST == adapter_digest(folder)
    assert {CONFIG_NAME, WEIGHTS_NAME} == {path.name for path in folder.iterdir()}
    assert [DIGEST] == visible(cache)


def test_it_is_fetched_once(bucket: fsspec.AbstractFileSystem, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen threads ask at once; later the store may be away. Each use is dated."""
    opened: list[str] = []
    once = remote.RemoteFolder.download

    def counted(self: remote.RemoteFolder, name: str, target: Path, limit_bytes: int) -> None:
        opened.append(name)
        once(self, name, target, limit_bytes)

    monkeypatch.setattr(remote.RemoteFolder, "download", counted)
    with ThreadPoolExecutor(16) as threads:
        assert {cache / DIGEST} == set(threads.map(lambda _: folder_of(files(cache)), range(16)))
    bucket.store.clear()
    os.utime(cache / DIGEST, (0, 0))
    assert cache / DIGEST == folder_of(files(cache))
    assert (cache / DIGEST).stat().st_mtime > 1_000_000_000
    assert [CONFIG_NAME, WEIGHTS_NAME] == opened


def test_other_content_than_registered_is_refused(bucket: fsspec.AbstractFileSystem, cache: Path) -> None:
    """Nothing of it stays."""
    bucket.pipe(f"/bucket/adapters/cfo/{WEIGHTS_NAME}", b"others")
    with pytest.raises(CheckpointError, match=f"registered as {DIGEST}"):
        folder_of(files(cache))
    assert [] == visible(cache)


def test_too_large_a_file_is_not_taken(bucket: object, cache: Path) -> None:
    """Told by its size before a byte is read."""
    with pytest.raises(AdapterUnavailable, match=r"the limit is 1,000.*--max-rank"):
        folder_of(files(cache, limit_bytes=1000))
    assert [] == visible(cache)


def test_a_file_that_grows_is_cut_off(bucket: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that lies about the size gets no further than the limit."""
    folder = remote.RemoteFolder(URI)
    monkeypatch.setattr(type(folder._fs), "info", lambda *_: {"size": 1})
    with pytest.raises(CheckpointError, match="the limit is 1,000"):
        folder.download(WEIGHTS_NAME, tmp_path / "weights", 1000)
    assert (tmp_path / "weights").stat().st_size <= 1000


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_a_missing_file_is_named(bucket: fsspec.AbstractFileSystem, cache: Path, name: str) -> None:
    """With the uri."""
    bucket.rm(f"/bucket/adapters/cfo/{name}")
    with pytest.raises(CheckpointError, match=f"{URI}: has no {name}"):
        folder_of(files(cache))
    assert [] == visible(cache)


@pytest.mark.parametrize(
    "uri",
    [
        "memory://bucket/adapters-of-others/cfo",
        "memory://bucket",
        "memory://other/adapters/cfo",
        "memory://bucket/adapters/../secret",
        "memory://bucket/adapters/./cfo",
        "memory://bucket/adapters/%2e%2e/secret",
        "memory://bucket/adapters/cfo?endpoint_url=http://evil",
        "memory://bucket//adapters/cfo",
        "memory://bucket/adapters/cfo\n",
        "s3://bucket/adapters/cfo",
    ],
)
def test_only_what_lies_below_an_allowed_place_is_read(bucket: object, cache: Path, uri: str) -> None:
    """Neighbours with a like name, ways out, options and other stores are not."""
    with pytest.raises((AdapterUnavailable, CheckpointError)):
        folder_of(files(cache), AdapterSource("cfo@1", DIGEST, uri))
    assert not cache.exists()


def test_no_place_is_allowed_unasked(bucket: object, cache: Path) -> None:
    """And the message names the flag."""
    with pytest.raises(AdapterUnavailable, match="--adapter-source"):
        folder_of(AdapterFiles((), (), CacheFolder(cache), 1000))


@pytest.mark.parametrize("digest", ["", "../../etc", "d" * 63, "D" * 64])
def test_a_digest_that_is_none_becomes_no_path(bucket: object, cache: Path, digest: str) -> None:
    with pytest.raises(CheckpointError, match="no sha256"):
        folder_of(files(cache), AdapterSource("cfo@1", digest, URI))


def test_a_damaged_copy_is_fetched_again(bucket: object, cache: Path) -> None:
    """After a failed read; a sound one is left alone, and so is a local adapter."""
    made = files(cache)
    folder = folder_of(made)
    assert not made.repaired(SOURCE)
    (folder / WEIGHTS_NAME).write_bytes(b"rot")
    assert made.repaired(SOURCE)
    assert DIGEST == adapter_digest(folder_of(made))
    shutil.rmtree(folder)
    assert made.repaired(SOURCE)
    assert not made.repaired(AdapterSource("cfo@1", DIGEST, CFO.as_uri()))


def test_what_was_pruned_is_fetched_again(bucket: object, cache: Path) -> None:
    """The cache's sweep knows these folders: a fresh one stays, an old one goes, and comes back when it is wanted."""
    made = files(cache)
    used_s = folder_of(made).stat().st_mtime
    assert 0 == CacheFolder(cache, 0, clock=lambda: used_s + 1).sweep().removed
    assert 1 == CacheFolder(cache, 0, clock=lambda: used_s + 3600).sweep().removed
    assert DIGEST == adapter_digest(folder_of(made))


def test_what_killed_downloads_left_is_swept(bucket: object, cache: Path) -> None:
    """Once it is old; a download under way is not touched."""
    for name, age in (("old", LEFTOVER_S + 60), ("new", 0)):
        (cache / f".partial-{name}").mkdir(parents=True)
        when = (cache / f".partial-{name}").stat().st_mtime - age
        os.utime(cache / f".partial-{name}", (when, when))
    folder_of(files(cache))
    assert [".partial-new", DIGEST] == visible(cache)


def test_the_template_beside_a_remote_adapter_is_read(bucket: fsspec.AbstractFileSystem, cache: Path) -> None:
    """It is not cached with it, and none is not the same as not asked."""
    assert "" == files(cache).remote_template(URI)
    bucket.pipe("/bucket/adapters/cfo/chat_template.jinja", b"{{ messages[0].content }}")
    assert "{{ messages[0].content }}" == files(cache).remote_template(URI)
    assert files(cache).remote_template(CFO.as_uri()) is None


def test_a_store_that_cannot_be_reached_is_no_verdict(
    bucket: object, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timed out here and now: the content may be sound."""
    made = files(cache)
    monkeypatch.setattr(fsspec.filesystem("memory").__class__, "info", _timed_out)
    with pytest.raises(AdapterUnavailable, match="cannot be reached"):
        folder_of(made)


def test_a_cache_that_cannot_be_written_is_no_verdict(bucket: object, tmp_path: Path) -> None:
    """A full disk, or no permission: this worker's trouble."""
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(AdapterUnavailable, match="--adapter-cache"):
        folder_of(files(tmp_path / "file" / "cache"))


def _timed_out(*_: object, **__: object) -> None:
    raise TimeoutError("the store did not answer")


def test_a_store_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the extra's name."""
    monkeypatch.setitem(remote.SCHEMES, "gs", "lorapool[gs]")
    with pytest.raises(AdapterUnavailable, match=r"pip install 'lorapool\[gs\]'"):
        remote.RemoteFolder("gs://bucket/cfo")


@pytest.mark.parametrize("place", ["ftp://", "s3:/bucket", "s3://bucket/../x", "", "hf"])
def test_a_place_that_is_none_is_refused(place: str) -> None:
    with pytest.raises(InvalidRequest):
        remote.check_place(place)


@pytest.mark.parametrize("place", ["hf://", "s3://bucket/adapters", "abfs://box@account.dfs.core.windows.net/a"])
def test_a_place_may_be_a_scheme(place: str) -> None:
    assert place == remote.check_place(place)
