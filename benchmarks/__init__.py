"""Benchmarks: Nearfield beside its peers, on the same machine and with the same numbers (README.md)."""
