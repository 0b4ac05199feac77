"""The programs that are measured, each a process of its own, and those that give them something to do."""
