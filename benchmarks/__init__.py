"""trio_smtp beside the others: what a message costs, in CPU, memory and round trips. Run ``python -m benchmarks``."""
