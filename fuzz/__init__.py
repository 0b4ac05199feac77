"""Fuzzing of the two protocol cores. ``python -m fuzz.server --seconds 60`` (needs the extra ``fuzz``)."""
