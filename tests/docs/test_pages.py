"""Every command and snippet of docs/ runs as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.conftest import DOCS, ROOT
from tests.docs.snippets import RUN, SHOWN, Block, Session, blocks, here, languages, matches
from tests.length import LONG

PAGES = sorted(DOCS.glob("*.md"))
QUICK_START = "quick-start.md"  # `make test-all` runs it in a newcomer's environment instead: test_newcomer.py
URL, HTTP = "redis://127.0.0.1:6379", "http://127.0.0.1:8080"
README_CODE = ("curl http", "lorapool adapters register", "pool.submit")
NOT_RUN = {
    "adapters.md": ["it needs a bucket"],
    "arq.md": ["it runs until it is stopped"],
    "batches.md": ["the gateway above has ended"],
    "clients.md": ["make clients runs it"] * 6,
    "operations.md": [
        "it runs until it is stopped",
        "it runs until it is stopped",
        "it needs a dead letter",
        "it needs Docker",
    ],
    "tuning.md": ["it takes minutes, and wants the machine for itself", "it belongs to a checkout"],
    "quick-start.md": [
        "the test keeps the demo's server and worker running itself",
        "the test runs this page in such an environment, made from a wheel of the checkout",
        "it installs torch and fetches a model from the hub",
        "it installs torch and fetches a model from the hub",
        "each starts a demo of its own",
    ],
}


@pytest.mark.timeout(400)  # a page's time, on a machine that others keep busy
@pytest.mark.parametrize("page", [page for page in PAGES if page.name != QUICK_START or not LONG], ids=lambda p: p.name)
def test_page_runs(page: Path, folder: Path, docs_url: str, docs_http: str) -> None:
    """In order, each block ends as the page says, and prints what the page shows."""
    session = Session(folder, here(), docs_url, {URL: docs_url, HTTP: docs_http})
    for block in blocks(page):
        if block.not_run is None:
            run_and_compare(session, block)


def run_and_compare(session: Session, block: Block) -> None:
    printed = session.run(block)
    assert block.output is None or matches(block.output, printed), (
        f"{block}\nsaid:\n{block.output}\nprinted:\n{printed}"
    )


def test_readme_code_runs(folder: Path, docs_url: str, docs_http: str) -> None:
    """The README's first question, by curl; and an agent's first code, after the adapter was registered as it says."""
    meant = {"redis://localhost:6379": docs_url, " /adapters/": " examples/adapters/", HTTP: docs_http}
    session = Session(folder, here(), docs_url, meant)
    found = [next(block for block in blocks(ROOT / "README.md") if word in block.text) for word in README_CODE]
    by_curl, register, ask = found
    assert '"chat.completion"' in session.run(by_curl)
    assert "cfo@1.0.0 is ready" in session.run(register)
    assert session.run(ask).strip()


def test_what_is_not_run_is_known_here() -> None:
    """A block that cannot run here says why, and is on the list above: the list cannot grow unseen."""
    found = {page.name: [block.not_run for block in blocks(page) if block.not_run is not None] for page in PAGES}
    print(sum(map(len, found.values())), "of", sum(len(blocks(page)) for page in PAGES), "blocks are not run")
    assert NOT_RUN == {page: reasons for page, reasons in found.items() if reasons}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_hides_behind_another_name(page: Path) -> None:
    """Blocks are sh or python, which run, or text, which is only shown: no bash, console or nameless ones."""
    assert languages(page) <= {*RUN, *SHOWN}


@pytest.mark.parametrize(
    ("said", "printed", "expected"),
    [
        ("a … c\n", "a b  b c", True),
        ("a … c", "a b", False),
        ("a.c", "abc", False),
        ("a", "a b", False),
        ("…b", "b", True),
    ],
)
def test_output_is_compared(said: str, printed: str, expected: bool) -> None:
    assert expected is matches(said, printed)


def test_a_block_that_fails_is_seen(tmp_path: Path) -> None:
    """A wrong exit status anywhere in a block fails it; exported variables live on."""
    session = Session(tmp_path, here(), "redis://nowhere")
    session.run(Block("p", 1, "sh", "export A=1"))
    assert "1\n" == session.run(Block("p", 2, "sh", "echo $A"))
    assert "2\n" == session.run(Block("p", 3, "python", "import asyncio\nprint(await asyncio.sleep(0, 2))"))
    session.run(Block("p", 4, "sh", "exit 3", fails=3))
    with pytest.raises(AssertionError, match="ended with 1"):
        session.run(Block("p", 5, "sh", "false\ntrue"))
    with pytest.raises(AssertionError, match="ended with 1"):
        session.run(Block("p", 6, "python", "raise ValueError"))
