"""What the package says of itself is true, and stands in one place."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import tomllib
from itertools import chain
from pathlib import Path
from xml.etree import ElementTree

import pytest

import localconc

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BENCHMARKS = sorted((ROOT / "tests" / "benchmarks").glob("*.py"))


def test_the_version_stands_in_one_place() -> None:
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT
    assert re.fullmatch(r"\d+\.\d+\.\d+", localconc.__version__)


def test_the_license_is_named_and_included() -> None:
    assert PROJECT["license"] == "MIT"
    for path in PROJECT["license-files"]:
        assert (ROOT / path).read_text(encoding="utf-8").startswith("MIT License")


def test_no_requirement_has_an_upper_bound() -> None:
    requirements = list(chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()))
    assert [each for each in requirements if re.search(r"<|~=|==", each.partition(";")[0])] == []


def links(text: str) -> list[str]:
    """Return what a page of Markdown leads to outside itself, other than addresses."""
    targets = re.findall(r"\]\(([^)]+)\)", text)
    return [target for target in targets if not target.startswith(("https://", "#"))]


def test_the_readme_has_no_link_that_leads_nowhere_on_an_index() -> None:
    """An index has no pictures: the README that the package brings leaves them out, and everything else stays."""
    text = importlib.metadata.metadata("localconc").get_payload()
    assert isinstance(text, str)
    assert links(text) == []
    shown = re.sub(r"\n!\[[^\]]*\]\([^)]*\)\n", "", README)
    assert text.split() == shown.split()


def test_the_readme_shows_pictures_that_are_there() -> None:
    assert links(README) == [".github/timeline.svg"]
    ElementTree.parse(ROOT / ".github" / "timeline.svg")


@pytest.mark.parametrize("module", BENCHMARKS, ids=lambda path: path.stem)
def test_benchmarks_use_what_anybody_can_use(module: Path) -> None:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert [name for name in imported if name.startswith("localconc._")] == []
