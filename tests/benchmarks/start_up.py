"""What a script pays before its first slot: the import, and the command line's `ls` and `run`."""

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from tests.benchmarks import semaphores
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import interleaved, medians

ALLOWANCE_MS = 15
BAR_INTERPRETERS = 2.5
BAR_IMPORTS = 2
ESSENTIAL = "filelock, sqlite3, platformdirs"
LATER = ("pendulum", "asyncio", "click", "rich")
NEEDED_BY_LS = "filelock, sqlite3, platformdirs, pendulum, click, rich.console, rich.table"
TIMED_IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
LOADED = "import json, sys; import {}; print(json.dumps(sorted(sys.modules)))"


def measure(effort: Effort) -> Report:
    """Milliseconds of `import localconc.sync`, `localconc ls` and `localconc run`, beside what they cannot avoid."""
    rounds = effort.choose(15, 3)
    return Report([*_import_rows(rounds), *_ls_rows(rounds), *_run_rows(rounds)])


def _import_rows(rounds: int) -> list[Row]:
    what, in_vain = "import localconc.sync", "modules that import localconc.sync loads too early"
    if not semaphores.installed("localconc.sync"):
        return [Row(what, None, "ms"), Row(in_vain, None, "", 0)]
    modules = {name: partial(_import_ms, name) for name in (ESSENTIAL, "localconc.sync", "filelock", "diskcache")}
    modules = {name: run for name, run in modules.items() if semaphores.installed(name.split(",")[0])}
    interleaved(modules, 1)
    spent = medians(interleaved(modules, rounds))
    early = sorted(set(LATER) & _loaded("localconc.sync") - _loaded(ESSENTIAL))
    peers: dict[str, float | None] = {name: spent.get(name) for name in ("filelock", "diskcache")}
    note = f"{ESSENTIAL} {spent[ESSENTIAL]:.1f} ms"
    return [
        Row(what, spent["localconc.sync"], "ms", spent[ESSENTIAL] + ALLOWANCE_MS, note=note, peers=peers),
        Row(in_vain, len(early), "", 0, note=", ".join(early)),
    ]


def _ls_rows(rounds: int) -> list[Row]:
    what = "localconc ls"
    if not (semaphores.installed("localconc.cli") and semaphores.installed("click")):
        return [Row(what, None, "ms", note="needs the extra `cli`")]
    with temporary_home():
        runs = {
            "pass": partial(_run_ms, "-c", "pass"),
            "imports": partial(_run_ms, "-c", f"import {NEEDED_BY_LS}"),
            what: partial(_run_ms, "-m", "localconc", "ls"),
        }
        try:
            interleaved(runs, 1)
        except subprocess.CalledProcessError as error:
            return [Row(what, None, "ms", note=f"it fails: {error.stderr.strip().splitlines()[-1]}")]
        spent = medians(interleaved(runs, rounds))
    imports = spent["imports"] - spent["pass"]
    note = f"python -c pass {spent['pass']:.0f} ms, the imports {imports:.0f} ms"
    return [Row(what, spent[what], "ms", BAR_INTERPRETERS * spent["pass"] + imports, note=note)]


def _run_rows(rounds: int) -> list[Row]:
    what = "localconc run NAME -- true"
    if not (semaphores.installed("localconc.cli") and semaphores.installed("click")):
        return [Row(what, None, "ms", note="needs the extra `cli`")]
    with temporary_home():
        runs = {
            "import": partial(_run_ms, "-c", "import localconc.sync"),
            what: partial(_run_ms, "-m", "localconc", "run", "gpu", "--limit", "1", "--", "true"),
        }
        interleaved(runs, 1)
        spent = medians(interleaved(runs, rounds))
    note = f"python -c 'import localconc.sync' {spent['import']:.0f} ms"
    return [Row(what, spent[what], "ms", BAR_IMPORTS * spent["import"], note=note)]


def _import_ms(modules: str) -> float:
    return float(_output("-c", TIMED_IMPORT.format(modules))) * 1e3


def _loaded(modules: str) -> set[str]:
    return set(json.loads(_output("-c", LOADED.format(modules))))


def _run_ms(*arguments: str) -> float:
    start = time.perf_counter()
    _output(*arguments)
    return (time.perf_counter() - start) * 1e3


def _output(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=_environment()).stdout


def _environment() -> dict[str, str]:
    """Byte code is kept, as it is for an installed package; in a place that goes with the benchmark."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "byte-code")}
