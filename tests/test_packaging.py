"""What is shipped: the wheel's content, what an import drags in, and what the texts promise."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SIDES = ("shared", "producer", "worker")
HEAVY = {"torch", "transformers", "peft", "safetensors", "tokenizers", "numpy", "accelerate", "arq"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built from the sources alone: a stale build folder must not feed it."""
    with zipfile.ZipFile(build_wheel(tmp_path_factory.mktemp("wheel"))) as archive:
        yield archive


def build_wheel(folder: Path) -> Path:
    """Build in ``folder``, without reaching for the network."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for side in SIDES:
        _copy_sources(ROOT / side, source / side)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
    ]
    outcome = subprocess.run([*pip, "--wheel-dir", folder, source], capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    return next(folder.glob("lorapool-*.whl"))


def _copy_sources(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())


def _is_of_a_page(path: Path) -> bool:
    return path.is_file() and bool({"assets", "templates"} & set(path.parts))


def test_wheel_holds_every_source_file(wheel):
    """Each Python file, Lua script, type marker and file of a page is in the wheel, none is forgotten."""
    expected = {
        f"lorapool/{path.relative_to(ROOT)}"
        for side in SIDES
        for path in (ROOT / side).rglob("*")
        if path.suffix in {".py", ".lua"} or path.name == "py.typed" or _is_of_a_page(path)
    }
    shipped = {name for name in wheel.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert shipped == expected


def test_wheel_claims_one_top_level_name(wheel):
    """Nothing named shared, producer, worker or tests lands in site-packages: only lorapool, which is a namespace."""
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lorapool"}
    assert "lorapool/__init__.py" not in wheel.namelist()


def test_wheel_carries_the_licence_and_both_commands(wheel):
    """The licence text and the entry points lorapool and lorapool-worker are in the wheel's metadata."""
    (entry_points,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert any(name.endswith("licenses/LICENSE") for name in wheel.namelist())
    text = wheel.read(entry_points).decode()
    assert "lorapool = lorapool.producer.cli:main" in text
    assert "lorapool-worker = lorapool.worker.cli:main" in text


@pytest.mark.parametrize("side", SIDES)
def test_version_is_that_of_pyproject(side):
    """Each side says which release it is, and the one place that states it is pyproject.toml."""
    assert PROJECT["project"]["version"] == import_module(f"lorapool.{side}").__version__


@pytest.mark.parametrize("side", ["producer", "worker"])
def test_both_commands_say_their_version(side):
    """--version prints it and does nothing else; an environment variable cannot ask for it."""
    app = import_module(f"lorapool.{side}.cli").app
    outcome = CliRunner().invoke(app, ["--version"])
    assert (outcome.exit_code, outcome.stdout) == (0, f"lorapool {PROJECT['project']['version']}\n")
    assert "Usage" in CliRunner().invoke(app, ["--help"], env={"LORAPOOL_VERSION": "1"}).stdout


def imported_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``statement``."""
    code = f"import sys; {statement}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(outcome.stdout.split())


@pytest.mark.parametrize("module", ["client", "sync", "cli", "aos"])
def test_an_agent_imports_no_torch(module):
    """What an agent imports pulls in no model library, even where they are installed."""
    assert not HEAVY & imported_by(f"import lorapool.producer.{module}")


def test_base_dependencies_hold_no_model_library():
    """`pip install lorapool` asks for none of them; the worker extra does."""
    base = {_name(requirement) for requirement in PROJECT["project"]["dependencies"]}
    assert not HEAVY & base
    assert {"torch", "transformers", "peft"} <= {
        _name(requirement) for requirement in PROJECT["project"]["optional-dependencies"]["worker"]
    }


def _name(requirement: str) -> str:
    return re.split(r"[<>=\[ ]", requirement, maxsplit=1)[0]


def options_of(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every option of a command and its subcommands, with the command it belongs to; --help and --version are none."""
    yield from ((path, param) for param in command.params if param.param_type_name == "option" and not param.is_eager)
    for name, subcommand in getattr(command, "commands", {}).items():
        yield from options_of(subcommand, f"{path} {name}")


@pytest.fixture(params=["producer", "worker"])
def options(request) -> list[tuple[str, Any]]:
    """Every option of one of the two command lines."""
    app = import_module(f"lorapool.{request.param}.cli").app
    return list(options_of(get_command(app), request.param))


def test_every_flag_has_an_environment_variable_of_its_name(options):
    """--redis-url is LORAPOOL_REDIS_URL, and so on for each flag: a container needs no arguments."""
    for command, option in options:
        flags = [name for name in option.opts if name.startswith("--")]
        expected = {"LORAPOOL_" + name.removeprefix("--").replace("-", "_").upper() for name in flags}
        variables = {option.envvar} if isinstance(option.envvar, str) else set(option.envvar or ())
        assert expected & variables, f"{command}: {flags} reads {variables}"


def test_every_flag_says_what_it_does(options):
    """No option stands in --help without a word."""
    assert not [(command, option.opts) for command, option in options if not option.help]


def test_operations_page_names_every_flag_of_the_worker():
    """The tables of docs/operations.md, of the settings of workers and maintenance workers, are whole."""
    page = (ROOT / "docs/operations.md").read_text()
    run = get_command(import_module("lorapool.worker.cli").app)
    told = ("run", "maintenance")
    flags = {
        name for path, option in options_of(run, "") if path.endswith(told) for name in option.opts if name[:2] == "--"
    }
    assert flags
    assert not {name for name in flags if f"`{name}`" not in page}
