"""How the server's keeper is put together: rooms in an order, none of them large, with one door to the engine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import localconc

ROOM = Path(localconc.__file__).parent / "_prefect"
PREFIX = "localconc._prefect."

#: From the bottom to the top. Each imports only from those before it, and from modules of its own.
ORDER = ("shared", "server", "asking", "holding", "acquiring", "administration", "keeper", "keepers", "doctor")

MODULES = sorted(path for path in ROOM.rglob("*.py") if path != ROOM / "__init__.py")


@pytest.fixture(autouse=True)
def _needs_prefect() -> None:
    """This reads files only."""


def _dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOM).with_suffix("").parts)


def _imports(path: Path) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
    return {name for name in names if name.startswith("localconc.")}


@pytest.mark.parametrize("path", MODULES, ids=_dotted)
def test_a_room_imports_only_from_rooms_below_it(path: Path) -> None:
    place = ORDER.index(_dotted(path).split(".")[0])
    used = {name.removeprefix(PREFIX).split(".")[0] for name in _imports(path) if name.startswith(PREFIX)}
    assert [name for name in used if ORDER.index(name) > place] == []


@pytest.mark.parametrize("path", MODULES, ids=_dotted)
def test_one_module_takes_from_the_engine(path: Path) -> None:
    takes = any(name.startswith("localconc._engine") for name in _imports(path))
    assert takes == (_dotted(path) == "shared")


@pytest.mark.parametrize("path", MODULES, ids=_dotted)
def test_a_module_is_small_and_says_in_one_sentence_what_it_is_for(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert len(path.read_text().splitlines()) <= 350
    sentence = (ast.get_docstring(tree) or "").splitlines()[0]
    assert sentence.endswith(".")
    assert " and " not in sentence
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 50, node.name


def test_a_room_has_few_modules() -> None:
    for directory in {path.parent for path in MODULES}:
        assert len([path for path in directory.glob("*.py") if path.name != "__init__.py"]) <= 9
