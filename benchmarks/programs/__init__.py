"""The programs that are measured, and the programs that load them; each runs in its own process."""
