"""What a script pays before its first slot: the import, and a command that runs under a limit."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.benchmarks import semaphores
from tests.benchmarks.home import temporary_home
from tests.benchmarks.report import Effort, Report, Row
from tests.benchmarks.rounds import interleaved, medians

ALLOWANCE_MS = 10
BAR_IMPORTS = 2.0
ESSENTIAL = "filelock, sqlite3, platformdirs"
LATER = ("pendulum", "asyncio", "click", "typer", "rich")
TIMED_IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
LOADED = "import json, sys; import {}; print(json.dumps(sorted(sys.modules)))"
RUN, IMPORT, FLOCK = "localconc run NAME -- true", "python -c 'import localconc.sync'", "flock(1)"


def measure(effort: Effort) -> Report:
    """Milliseconds of `import localconc.sync` and of `localconc run`, beside what they cannot avoid."""
    return Report([*_import_rows(effort.choose(21, 3)), _run_row(effort.choose(15, 3))])


def _import_rows(rounds: int) -> list[Row]:
    modules = {name: partial(_import_ms, name) for name in (ESSENTIAL, "localconc.sync", "filelock", "diskcache")}
    modules = {name: run for name, run in modules.items() if semaphores.installed(name.split(",")[0])}
    interleaved(modules, 1)
    spent = medians(interleaved(modules, rounds))
    early = sorted(set(LATER) & _loaded("localconc.sync") - _loaded(ESSENTIAL))
    peers: dict[str, float | None] = {name: spent.get(name) for name in ("filelock", "diskcache")}
    note = f"{ESSENTIAL} {spent[ESSENTIAL]:.1f} ms"
    return [
        Row(
            "import localconc.sync",
            spent["localconc.sync"],
            "ms",
            spent[ESSENTIAL] + ALLOWANCE_MS,
            "lower",
            note,
            peers,
        ),
        Row("modules that import localconc.sync loads too early", len(early), "", 0, note=", ".join(early)),
    ]


def _run_row(rounds: int) -> Row:
    with temporary_home() as directory:
        runs: dict[str, Callable[[], float]] = {
            IMPORT: partial(_run_ms, sys.executable, "-c", "import localconc.sync"),
            RUN: partial(_run_ms, sys.executable, "-m", "localconc", "run", "gpu", "--limit", "1", "--", "true"),
        }
        if shutil.which("flock"):
            runs[FLOCK] = partial(_run_ms, "flock", str(directory / "lock"), "true")
        try:
            interleaved(runs, 1)
        except subprocess.CalledProcessError as error:
            return Row(RUN, None, "ms", note=f"it fails: {error.stderr.strip().splitlines()[-1]}")
        spent = medians(interleaved(runs, rounds))
    note = f"{IMPORT} {spent[IMPORT]:.0f} ms"
    return Row(RUN, spent[RUN], "ms", BAR_IMPORTS * spent[IMPORT], note=note, peers={FLOCK: spent.get(FLOCK)})


def _import_ms(modules: str) -> float:
    return float(_output(sys.executable, "-c", TIMED_IMPORT.format(modules))) * 1e3


def _loaded(modules: str) -> set[str]:
    return set(json.loads(_output(sys.executable, "-c", LOADED.format(modules))))


def _run_ms(*command: str) -> float:
    start = time.perf_counter()
    _output(*command)
    return (time.perf_counter() - start) * 1e3


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, env=_environment()).stdout


def _environment() -> dict[str, str]:
    """Byte code is kept, as it is for an installed package; in a place that goes with the benchmark."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(Path(tempfile.gettempdir()) / "byte-code")}
