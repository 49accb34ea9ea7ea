"""A cache folder is kept within its budget, and nothing in use or foreign is touched."""

from __future__ import annotations

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from lorapool.worker.adapters.cache_folder import FRESH_S, LEFTOVER_S, CacheFolder, Swept

NOW_S = 2_000_000_000.0
SIZE = 1000


def digest(name: str) -> str:
    return sha256(name.encode()).hexdigest()


def add(folder: Path, name: str, age_s: float = 2 * FRESH_S) -> Path:
    """An entry of 1,000 bytes, last used so long ago."""
    path = folder / name
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "adapter_model.safetensors").write_bytes(b"x" * SIZE)
    os.utime(path, (NOW_S - age_s, NOW_S - age_s))
    return path


def sweep(folder: Path, limit_bytes: int) -> Swept:
    return CacheFolder(folder, limit_bytes, clock=lambda: NOW_S).sweep()


def test_the_least_recently_used_go_first(tmp_path: Path):
    """Until the rest fits, and no more."""
    paths = [add(tmp_path, digest(str(n)), age_s=FRESH_S + 100 - n) for n in range(5)]
    assert Swept(entries=3, kept_bytes=3 * SIZE, removed=2, removed_bytes=2 * SIZE) == sweep(tmp_path, 3 * SIZE + 1)
    assert [False, False, True, True, True] == [path.exists() for path in paths]
    assert 3 == len(list(tmp_path.iterdir()))


def test_what_fits_stays(tmp_path: Path):
    add(tmp_path, digest("a"))
    assert Swept(1, SIZE, 0, 0) == sweep(tmp_path, SIZE)


def test_fresh_entries_stay_whatever_the_budget(tmp_path: Path):
    """A worker may be about to read it."""
    fresh, old = add(tmp_path, digest("a"), age_s=FRESH_S - 1), add(tmp_path, digest("b"))
    assert Swept(1, SIZE, 1, SIZE) == sweep(tmp_path, 0)
    assert (True, False) == (fresh.exists(), old.exists())


def fetch(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"x" * SIZE)


def make_old(path: Path) -> None:
    os.utime(path, (0, 0))


def test_an_entry_that_is_read_stays(tmp_path: Path):
    """However long; after that it may go. Two may read it at once."""
    cache = CacheFolder(tmp_path)
    with cache.reading(digest("a"), fetch) as path:
        with cache.reading(digest("a"), fetch):
            make_old(path)
            assert 0 == sweep(tmp_path, 0).removed
        assert 0 == sweep(tmp_path, 0).removed
        assert [path / "adapter_model.safetensors"] == list(path.iterdir())
    assert 1 == sweep(tmp_path, 0).removed


def test_an_entry_that_went_is_fetched_again(tmp_path: Path):
    """Each time that it is wanted."""
    fetched = []

    def count(folder: Path) -> None:
        fetched.append(folder)
        fetch(folder)

    for _ in range(2):
        with CacheFolder(tmp_path).reading(digest("a"), count) as path:
            make_old(path)
        sweep(tmp_path, 0)
    assert 2 == len(fetched)


def test_one_that_is_swept_before_it_is_locked_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The reader holds what lies under the name, not what lay there before."""
    lock = fcntl.flock
    add(tmp_path, digest("a"))

    def sweep_first(fd: int, how: int) -> None:
        monkeypatch.setattr(fcntl, "flock", lock)
        assert 1 == sweep(tmp_path, 0).removed
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", sweep_first)
    with CacheFolder(tmp_path).reading(digest("a"), fetch) as path:
        make_old(path)
        assert 0 == sweep(tmp_path, 0).removed
        assert (path / "adapter_model.safetensors").exists()


def test_a_download_under_way_stays(tmp_path: Path):
    """However long it takes: its folder is held."""

    def slowly(folder: Path) -> None:
        make_old(folder)
        sweep(tmp_path, 0)
        fetch(folder)

    with CacheFolder(tmp_path).reading(digest("a"), slowly) as path:
        assert (path / "adapter_model.safetensors").exists()


def test_a_damaged_entry_goes_though_it_is_read(tmp_path: Path):
    """Its readers fail as well; discarding it once more does nothing."""
    cache = CacheFolder(tmp_path)
    with cache.reading(digest("a"), fetch) as path:
        cache.discard(digest("a"))
        assert not path.exists()
    cache.discard(digest("a"))


def test_without_a_budget_nothing_is_evicted(tmp_path: Path):
    """Only what was cut off is cleared."""
    entry, leftover = add(tmp_path, digest("a")), add(tmp_path, ".partial-x", age_s=LEFTOVER_S)
    assert Swept(1, SIZE, 0, 0) == CacheFolder(tmp_path, clock=lambda: NOW_S).sweep()
    assert (True, False) == (entry.exists(), leftover.exists())


def test_nothing_else_is_touched(tmp_path: Path):
    """Not files, other folders, links, nor what links point at."""
    outside = tmp_path / "outside"
    outside.mkdir()
    target = add(outside, "precious")
    folder = tmp_path / "cache"
    folder.mkdir()
    add(folder, "not-a-digest")
    add(folder, digest("x").upper())
    (folder / digest("file")).write_bytes(b"x")
    (folder / digest("link")).symlink_to(target)
    inner = add(folder, digest("a"))
    (inner / "up").symlink_to(outside)
    os.utime(inner, (NOW_S - 2 * FRESH_S,) * 2)
    assert 1 == sweep(folder, 0).removed
    assert (target / "deep" / "adapter_model.safetensors").exists()
    assert {"not-a-digest", digest("x").upper(), digest("file"), digest("link")} == {p.name for p in folder.iterdir()}


@pytest.mark.parametrize("name", [".trash-0123456789abcdef", ".partial-x"])
def test_old_leftovers_go(tmp_path: Path, name: str):
    """What a cut-off removal or download left; six hours old, not younger."""
    old, young = add(tmp_path, name, age_s=LEFTOVER_S), add(tmp_path, name + "2", age_s=LEFTOVER_S - 1)
    sweep(tmp_path, 10 * SIZE)
    assert (False, True) == (old.exists(), young.exists())


def test_several_sweeps_at_once_take_each_entry_once(tmp_path: Path):
    for number in range(40):
        add(tmp_path, digest(str(number)))
    with ThreadPoolExecutor(8) as threads:
        swept = list(threads.map(lambda _: sweep(tmp_path, 0), range(8)))
    assert 40 == sum(one.removed for one in swept)
    assert [] == list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path):
    assert Swept(0, 0, 0, 0) == sweep(tmp_path / "none", 0)
