"""The cost of a message in CPU time, memory and round trips, beside others: ``python -m benchmarks``."""
