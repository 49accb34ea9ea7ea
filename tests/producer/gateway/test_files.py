"""Files through the gateway, with OpenAI's own client and by hand: kept whole, shown to their owner alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError

from lorapool.producer.testing.canned import CannedPool
from tests.producer.gateway.conftest import gateway

CONTENT = b'{"custom_id": "a"}\r\n' * 5000


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
async def files_url(canned: CannedPool, location: Path) -> AsyncIterator[str]:
    async with gateway(canned, files=str(location), max_file_bytes=1 << 20) as url:
        yield url


@pytest.fixture
async def openai(files_url: str) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{files_url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
async def raw(files_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=files_url, timeout=60) as client:
        yield client


def stored(location: Path) -> list[Path]:
    return [path for path in location.rglob("*") if path.is_file()]


async def test_a_file_comes_back_as_it_went(openai: AsyncOpenAI) -> None:
    """Its bytes, its name, its purpose; listed, and gone once deleted."""
    made = await openai.files.create(file=("q.jsonl", CONTENT), purpose="batch")
    assert (len(CONTENT), "q.jsonl", "batch", "processed") == (made.bytes, made.filename, made.purpose, made.status)
    assert CONTENT == (await openai.files.content(made.id)).content
    assert [made] == [file async for file in openai.files.list()] == [await openai.files.retrieve(made.id)]
    assert (await openai.files.delete(made.id)).deleted
    with pytest.raises(NotFoundError):
        await openai.files.retrieve(made.id)
    assert [] == (await openai.files.list()).data


async def test_lists_are_paged(openai: AsyncOpenAI) -> None:
    """Through all pages, in either order; of one purpose."""
    made = [(await openai.files.create(file=b"x", purpose=purpose)).id for purpose in ("batch", "vision", "batch")]
    assert made[::-1] == [file.id async for file in openai.files.list(limit=1)]
    assert made == [file.id async for file in openai.files.list(limit=2, order="asc")]
    assert made[::2] == [file.id async for file in openai.files.list(purpose="batch", order="asc")]


async def test_a_file_is_kept_as_long_as_was_said(openai: AsyncOpenAI) -> None:
    """For thirty days, or for a time between an hour and that."""
    month = await openai.files.create(file=b"x", purpose="batch")
    hour = await openai.files.create(
        file=b"x", purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    kept = [(each.expires_at or 0) - each.created_at for each in (month, hour)]
    assert [30 * 86_400, 3600] == [round(seconds / 60) * 60 for seconds in kept]
    with pytest.raises(BadRequestError, match="3600"):
        await openai.files.create(file=b"x", purpose="batch", expires_after={"anchor": "created_at", "seconds": 5})


NAMES = ["../../etc/passwd", "/etc/passwd", "..\\..\\x", "a/b.jsonl", "é\x00\n", ".", "x" * 400]


async def test_a_name_leads_nowhere(openai: AsyncOpenAI, location: Path) -> None:
    """It is shown, cleaned; where the content lies has nothing of it."""
    made = [await openai.files.create(file=(name, b"x"), purpose="batch") for name in NAMES]
    assert {location / "files" / each.id for each in made} == set(stored(location))
    for each in made:
        assert not {"/", "\\", "\x00", "\n"} & set(each.filename)
        assert 1 <= len(each.filename) <= 255


async def test_what_is_too_large_leaves_nothing(raw: httpx.AsyncClient, location: Path) -> None:
    """413, announced or not, and no part of it is kept."""
    form = {"files": {"file": ("a", b"x" * ((1 << 20) + 1))}, "data": {"purpose": "batch"}}
    assert 413 == (await raw.post("/v1/files", **form)).status_code

    async def endless() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield b"x" * 65_536

    with_boundary = {"content-type": "multipart/form-data; boundary=b"}
    answer = await raw.post("/v1/files", content=endless(), headers=with_boundary)
    assert (413, []) == (answer.status_code, stored(location))


FORM = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
END = b"--b--\r\n"
A_FILE = PART % (b"file", b'; filename="a"', b"x")
NO_FORMS = [
    ({"content-type": "application/json"}, b"{}", 415, "multipart"),
    ({"content-type": "multipart/form-data"}, END, 415, "multipart"),
    (FORM, b"nonsense", 400, "form"),
    (FORM, b"--b\r\n", 400, "end is missing"),
    (FORM, END, 400, "file: missing"),
    (FORM, PART % (b"purpose", b"", b"batch") + END, 400, "file: missing"),
    (FORM, A_FILE + END, 400, "purpose"),
    (FORM, A_FILE + PART % (b"purpose", b"", b"batch"), 400, "end is missing"),
    (FORM, A_FILE + A_FILE + END, 400, "twice"),
    (FORM, PART % (b"purpose", b"", b"x" * 9000) + END, 400, "bytes"),
]


async def test_what_is_no_form_is_refused(raw: httpx.AsyncClient, location: Path) -> None:
    """In OpenAI's words, and nothing stays."""
    for headers, body, status, says in NO_FORMS:
        answer = await raw.post("/v1/files", content=body, headers=headers)
        assert (status, []) == (answer.status_code, stored(location)), body[:80]
        assert says in answer.json()["error"]["message"], body[:80]


async def test_an_upload_that_breaks_off_leaves_nothing(raw: httpx.AsyncClient, location: Path) -> None:
    """The client goes in mid-file: what came of it is removed."""

    async def broken() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 100_000
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await raw.post("/v1/files", content=broken(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert [] == (await raw.get("/v1/files")).json()["data"]


async def test_another_agents_files_are_not_there(canned: CannedPool, location: Path) -> None:
    """404, and not in the list; an operator sees all."""
    async with canned.client() as client:
        keys = {name: await client.keys.add(name) for name in ("ada", "eve")}
        keys["boss"] = await client.keys.add("boss", role="operator")
    async with gateway(canned, files=str(location)) as url:
        ada, eve, boss = (AsyncOpenAI(base_url=f"{url}/v1", api_key=keys[name]) for name in ("ada", "eve", "boss"))
        made = await ada.files.create(file=b"x", purpose="batch")
        for ask in (eve.files.retrieve, eve.files.delete, eve.files.content):
            with pytest.raises(NotFoundError):
                await ask(made.id)
        with pytest.raises(NotFoundError):
            await eve.batches.create(input_file_id=made.id, endpoint="/v1/completions", completion_window="24h")
        lists = [[file.id for file in (await each.files.list()).data] for each in (ada, eve, boss)]
        assert [[made.id], [], [made.id]] == lists
        for each in (ada, eve, boss):
            await each.close()
