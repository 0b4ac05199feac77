# The limit of file descriptors, which a program may raise for itself. A library must not: it is the whole process's.
from __future__ import annotations

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

_FOR_THE_REST = 128  # descriptors of a process beside its connections and their files


def make_room_for(connections: int | None) -> None:
    """Raise the soft limit, up to the hard one, to what connections and the file that each may write need."""
    if resource is None or connections is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + _FOR_THE_REST
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # a system may allow less than it says; the server refuses connections in time
        pass
