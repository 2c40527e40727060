"""How the engine is put together: rooms in an order, none of them large, and a short way from a call to its row."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import localconc
from tests.kit.systems import needs_sockets

PACKAGE = Path(localconc.__file__).parent
ENGINE = PACKAGE / "_engine"

#: The rooms of the engine, from the bottom to the top. Each imports only from those before it.
ROOMS = (
    "core",
    "homes",
    "store",
    "queue",
    "liveness",
    "events",
    "holding",
    "acquiring",
    "engine",
    "waiting",
    "operations",
    "machine",
    "registry",
)

#: What a contended acquisition may pass through.
MAX_FUNCTIONS, MAX_FILES = 60, 14

_CONTENDED = """
import subprocess, sys
from localconc import create_limit
from localconc.sync import concurrency

HOLDER = '''
import sys, time
from localconc.sync import concurrency
from tests.kit.systems import needs_sockets
for line in sys.stdin:
    with concurrency("contended"):
        print("in", flush=True)
        time.sleep(float(line))
'''
create_limit("contended", 1)
holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

def wait_once(profile):
    holder.stdin.write("0.004\\n")
    holder.stdin.flush()
    holder.stdout.readline()
    sys.setprofile(profile)
    with concurrency("contended") as occupancy:
        sys.setprofile(None)
        waited = occupancy.waited_seconds
        sys.setprofile(profile)
    sys.setprofile(None)
    return waited

passed = []
for attempt in range(12):
    functions = set()
    def note(frame, event, argument):
        path = frame.f_code.co_filename
        if event == "call" and "localconc" in path and path.endswith(".py"):
            functions.add((path, frame.f_code.co_name))
    if wait_once(note if attempt >= 2 else None) and attempt >= 2:
        passed.append((len(functions), len({path for path, _ in functions})))
holder.stdin.close()
holder.wait()
print(*min(passed))
"""


def modules(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports from this package, wherever in the file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return {name for name in found if name.startswith("localconc.")}


def dotted(path: Path) -> str:
    return ".".join(("localconc", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")


def test_each_room_imports_only_from_rooms_below_it() -> None:
    wrong = []
    for path in modules(ENGINE):
        parts = path.relative_to(ENGINE).with_suffix("").parts
        if parts == ("__init__",):
            continue
        place = ROOMS.index(parts[0])
        for name in imported(path):
            below = name.removeprefix("localconc._engine.").split(".")[0]
            if name.startswith("localconc._engine.") and ROOMS.index(below) > place:
                wrong.append(f"{dotted(path)} imports {name}")
    assert not wrong


def test_no_module_of_the_engine_imports_itself_by_way_of_others() -> None:
    names = {dotted(path): path for path in modules(ENGINE)}
    graph = {name: {other for other in imported(path) if other in names} - {name} for name, path in names.items()}
    while removable := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in removable:
            del graph[name]
    assert not graph, f"these import each other in a circle: {sorted(graph)}"


def test_rooms_and_modules_are_small() -> None:
    for directory in {path.parent for path in modules(ENGINE)}:
        inside = [path for path in directory.glob("*.py") if path.name != "__init__.py"]
        assert len(inside) <= 9, f"{directory.name} has {len(inside)} modules"
        for path in inside:
            lines = len(path.read_text().splitlines())
            assert 40 <= lines <= 350, f"{dotted(path)} has {lines} lines"


@pytest.mark.parametrize("path", modules(ENGINE), ids=dotted)
def test_a_module_says_in_one_sentence_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring
    sentence = docstring.splitlines()[0]
    assert sentence.endswith("."), sentence
    assert " and " not in sentence, sentence


@needs_sockets
def test_a_contended_acquisition_passes_through_few_functions_of_few_files() -> None:
    """The fewest of several tries count: a wait that happens to be long starts the watch on other processes."""
    run = subprocess.run([sys.executable, "-c", _CONTENDED], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    functions, files = map(int, run.stdout.split())
    assert 10 < functions <= MAX_FUNCTIONS, f"{functions} functions"
    assert files <= MAX_FILES, f"{files} files"


def test_no_cursor_outlives_the_expression_that_made_it() -> None:
    """A traceback could keep it, and with it a read, and the locks of a connection that is closed."""
    kept = []
    for path in sorted(ENGINE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        parents = {child: parent for parent in ast.walk(tree) for child in ast.iter_child_nodes(parent)}
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("execute", "_execute")
            ):
                parent = parents[node]
                is_done = isinstance(parent, ast.Expr) or (
                    isinstance(parent, ast.Attribute)
                    and parent.attr in ("fetchall", "fetchone", "rowcount", "lastrowid")
                )
                if not is_done and "ENQUEUE_FAST" not in ast.unparse(node):  # an INSERT, which has ended
                    kept.append(f"{dotted(path)}, line {node.lineno}")
    assert kept == []


def test_no_loop_that_ends_with_a_condition_stands_inside_the_with_of_a_lock() -> None:
    """On Python 3.12 and 3.13, what a signal handler raises at its jump back would leave the lock taken."""
    found = [
        f"{path.relative_to(PACKAGE)}:{loop.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for block in ast.walk(ast.parse(path.read_text()))
        if isinstance(block, ast.With) and any("lock" in ast.unparse(item.context_expr) for item in block.items)
        for loop in ast.walk(block)
        if isinstance(loop, ast.While) or (isinstance(loop, ast.For) and isinstance(loop.body[-1], ast.If))
    ]

    assert found == []
