"""Benchmarks: `python -m tests.benchmarks` (or `make bench`) runs them all, `... NAME` one of them."""
