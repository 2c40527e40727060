"""Benchmarks of localconc beside its peers: `python -m tests.benchmarks [name…] [--json FILE] [--quick]`."""
