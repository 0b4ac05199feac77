# A Maildir: one file for each message, written under tmp/ and renamed into new/ when it is whole.
#
# Promises: a file in new/ is whole and on the disk before the client hears 250; a message that is not accepted, for
# whatever reason, leaves nothing behind; below our trace lines the content is byte for byte what came. The files are
# written in threads, a small message in one go. This file knows nothing of sessions and replies.
from __future__ import annotations

import itertools
import os
import secrets
import socket
import time
from collections.abc import AsyncIterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from .trace import Trace

CHUNK: Final = 256 * 1024  # octets collected before a thread is asked to write them


def unique_ids() -> Iterator[str]:
    """Queue ids for ever, none of which another process, on this machine or another, will use."""
    # Containers may share the host's name and the process id; random bits keep them apart.
    run = secrets.token_hex(3)
    for number in itertools.count(1):
        seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
        yield f"{seconds}.M{microseconds:06d}P{os.getpid()}R{run}Q{number}"


class Maildir:
    """A Maildir that messages can be put into, from any number of tasks and processes at once.

    Args:
        path: the directory; it and its ``tmp``, ``new`` and ``cur`` are made where missing, readable by their owner.
        hostname: the part of file names that keeps machines apart; by default this machine's name.

    Raises:
        OSError: a directory is missing and cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], *, hostname: str | None = None) -> None:
        self.path = Path(path)
        for name in ("tmp", "new", "cur"):
            (self.path / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        host = socket.gethostname() if hostname is None else hostname
        # The two escapes the Maildir convention asks for; a slash or a colon would break the name.
        self._host = host.replace("/", r"\057").replace(":", r"\072")

    def file_of(self, queue_id: str) -> Path:
        """Where the message with this id lies until a mail reader takes it."""
        return self.path / "new" / f"{queue_id}.{self._host}"

    async def store(self, trace: Trace, content: AsyncIterable[bytes]) -> int:
        """Write one message; when this returns it is on the disk and in ``new``.

        Args:
            trace: written above the content; its queue id, from :func:`unique_ids`, names the file.
            content: the content, in chunks of any size.

        Returns:
            How many octets of content there were.

        Raises:
            OSError: it could not be written. After any exception, ``Cancelled`` included, the temporary file is gone
                and nothing is in ``new``; but a cancellation that comes while the last chunk is being written is
                only noticed by the caller's next checkpoint, with the message stored.
        """
        target = self.file_of(trace.queue_id)
        head = trace.to_bytes()
        file = _Delivery(self.path / "tmp" / target.name, target)
        pending, size = bytearray(head), -len(head)
        try:
            async for chunk in content:
                pending += chunk
                if len(pending) >= CHUNK:
                    size += len(pending)
                    await trio.to_thread.run_sync(file.write, pending)
                    pending = bytearray()
            size += len(pending)
            await trio.to_thread.run_sync(file.finish, pending)
        except BaseException:
            if file.is_unfinished:
                with trio.move_on_after(10, shield=True):
                    await trio.to_thread.run_sync(file.discard, abandon_on_cancel=True)
            raise
        return size


class _Delivery:
    """One file on its way from ``tmp`` to ``new``; every method blocks, and is called in a thread."""

    def __init__(self, tmp: Path, new: Path) -> None:
        self._tmp, self._new = tmp, new
        self._fd: int | None = None
        self._unfinished: Path | None = None  # where the file lies, as long as it may have to be taken away again

    @property
    def is_unfinished(self) -> bool:
        """Whether there is a file that must be finished or discarded."""
        return self._unfinished is not None

    def write(self, data: bytearray) -> None:
        if self._fd is None:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
            self._fd = os.open(self._tmp, flags, 0o600)
            self._unfinished = self._tmp
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                written += os.write(self._fd, view[written:])

    def finish(self, data: bytearray) -> None:
        try:
            self.write(data)
            assert self._fd is not None
            os.fsync(self._fd)
            self._close()
            os.rename(self._tmp, self._new)
            self._unfinished = self._new
            _sync_directory(self._new.parent)
            self._unfinished = None
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        with suppress(OSError):
            self._close()
        if self._unfinished is not None:
            with suppress(OSError):
                os.unlink(self._unfinished)
            self._unfinished = None

    def _close(self) -> None:
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)  # a file system may keep its error until now (NFS)


def _sync_directory(path: Path) -> None:
    """Put the new name itself on the disk: without this a power cut may forget a file that was answered 250."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows has no such thing
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
