"""How much memory a process has in use."""

import gc
from pathlib import Path


def resident_megabytes() -> float:
    """Of this process, garbage collected first."""
    gc.collect()
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(kilobytes) * 1024 / 1e6
