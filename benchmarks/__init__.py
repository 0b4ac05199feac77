"""The cost of a message in CPU time, memory and round trips, ours and that of others: ``python -m benchmarks``."""
