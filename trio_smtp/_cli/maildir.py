# A Maildir: one file per message, written in tmp/ and renamed into new/ when it is complete.
#
# Guarantees: a file in new/ is complete and on the disk before the client gets the 250; a message that is not accepted,
# for any reason, leaves no file; after the trace lines the content is byte for byte what was received. Files are
# written in threads, a small message in one call. This module does not know sessions and replies.
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

from .received import ReceivedFields

CHUNK: Final = 256 * 1024  # octets collected before a thread writes them
ABANDONED: Final = 36 * 3600  # seconds after which a file in tmp/ is left from a delivery that died: maildir(5)
CLEANED_EVERY: Final = 3600  # seconds


def unique_ids() -> Iterator[str]:
    """An endless iterator of queue ids that are unique among all processes and machines."""
    # Containers may have the same host name and process id, but not the same random bits.
    run = secrets.token_hex(3)
    for number in itertools.count(1):
        seconds, microseconds = divmod(time.time_ns() // 1000, 1_000_000)
        yield f"{seconds}.M{microseconds:06d}P{os.getpid()}R{run}Q{number}"


def short(queue_id: str) -> str:
    """The end of a queue id: enough to tell a run's messages apart, and to find its file by."""
    return queue_id.rpartition("R")[2]


class Maildir:
    """A Maildir to store messages in, from any number of tasks and processes at once.

    Args:
        path: the directory. It and its ``tmp``, ``new`` and ``cur`` are created if missing, with mode 0700, and so are
            the directories above it, with the usual mode.
        hostname: the part of file names that differs between machines; by default this machine's name.

    Raises:
        OSError: a directory is missing and cannot be created.
    """

    def __init__(self, path: str | os.PathLike[str], *, hostname: str | None = None) -> None:
        self.path = Path(path)
        _make_directory(self.path.parent, mode=0o777)
        _make_directory(self.path, mode=0o700)
        for name in ("tmp", "new", "cur"):
            _make_directory(self.path / name, mode=0o700)
        host = socket.gethostname() if hostname is None else hostname
        # The two escapes of the Maildir convention; a slash or a colon would break the name.
        self._host = host.replace("/", r"\057").replace(":", r"\072")

    def file_of(self, queue_id: str) -> Path:
        """The file of the message with this id, until a mail reader moves it."""
        return self.path / "new" / f"{queue_id}.{self._host}"

    def remove_abandoned(self) -> int:
        """Remove the files in ``tmp`` that deliveries which died have left there; returns how many.

        Such a file was not touched for 36 hours, as maildir(5) says. Directories, links and names with a dot in front
        are left alone: no delivery makes them. It blocks, so a server calls it in a thread.
        """
        removed = 0
        now = time.time()
        with suppress(OSError), os.scandir(self.path / "tmp") as entries:  # not ours to read: not ours to clean
            for entry in entries:
                with suppress(OSError):  # another process has removed it, or it is another user's
                    if not entry.name.startswith(".") and _is_abandoned(entry, now):
                        os.unlink(entry.path)
                        removed += 1
        return removed

    async def keep_clean(self) -> None:
        """Remove abandoned files now, and again each hour, until cancelled."""
        while True:
            await trio.to_thread.run_sync(self.remove_abandoned)
            await trio.sleep(CLEANED_EVERY)

    async def store(self, fields: ReceivedFields, content: AsyncIterable[bytes]) -> int:
        """Store one message. When this returns, it is on the disk and in ``new``.

        Args:
            fields: written above the content; its queue id, from :func:`unique_ids`, names the file.
            content: the content, in chunks of any size.

        Returns:
            The number of octets of content.

        Raises:
            OSError: the file could not be written. After any exception, ``Cancelled`` included, the temporary file is
                removed and nothing is in ``new``. A cancellation while the last chunk is being written takes effect
                only at the caller's next checkpoint, with the message stored.
        """
        target = self.file_of(fields.queue_id)
        head = fields.to_bytes()
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
    """One file on its way from ``tmp`` to ``new``. Its methods block, so they are called in a thread."""

    def __init__(self, tmp: Path, new: Path) -> None:
        self._tmp, self._new = tmp, new
        self._fd: int | None = None
        self._unfinished: Path | None = None  # the file, as long as it may have to be removed

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
            os.close(fd)  # NFS reports some errors only here


def _is_abandoned(entry: os.DirEntry[str], now: float) -> bool:
    if not entry.is_file(follow_symlinks=False):
        return False
    facts = entry.stat(follow_symlinks=False)
    return now - max(facts.st_atime, facts.st_mtime) > ABANDONED  # a write need not move the former


def _make_directory(path: Path, *, mode: int) -> None:
    """Make a directory and those above it, and flush each name to the disk, as those of messages are."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        with suppress(FileExistsError):  # another process was faster; a file of that name is an error further on
            directory.mkdir(mode=mode)
        with suppress(PermissionError):  # one may write to a directory that one may not read
            _sync_directory(directory.parent)


def _sync_directory(path: Path) -> None:
    """Flush the new name to the disk. Without this, a power failure may lose a file after its 250."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows does not have it
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
