# Certificates that are renewed while a server runs: read again when their files change, without a new context.
#
# A context takes a new certificate and then its key. If the key is another's, the context has neither; so both are
# tried in a context of their own first. Connections that exist keep what they had.
from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterable
from typing import NoReturn, TypeAlias

import trio

from .._logging import logger
from .._protocol.checks import check_kind, check_path, check_seconds

_State: TypeAlias = tuple[tuple[int, int, int, int], ...]


async def watch_certificates(
    context: ssl.SSLContext,
    cert: str | os.PathLike[str],
    key: str | os.PathLike[str] | None = None,
    *,
    interval: float = 60,
    signals: AsyncIterable[object] | None = None,
) -> NoReturn:
    """Load a certificate again whenever its files change, until cancelled.

    Handshakes from then on use the new certificate; connections notice nothing. What cannot be loaded is logged as an
    error, once for each change, and the certificate before it stays.

    Args:
        context: a server's, with the certificate as it is now.
        cert: the certificate chain (PEM).
        key: its private key (PEM), without a password; ``None`` if it is in the file of the chain.
        interval: seconds between two looks at the files.
        signals: each item loads the files at once, changed or not: a ``trio.open_signal_receiver(SIGHUP)``, for
            example. Its end ends nothing.

    Raises:
        TypeError, ValueError: naming the argument. What `signals` raises comes in a group.
    """
    check_kind("context", context, ssl.SSLContext)
    check_seconds("interval", interval, optional=False)
    check_kind("signals", signals, AsyncIterable, optional=True)
    files = _Files(context, cert, key)
    async with trio.open_nursery() as nursery:
        if signals is not None:
            nursery.start_soon(files.obey, signals)
        while True:
            await trio.sleep(interval)
            await files.look()
    raise AssertionError("this ends by cancellation only")  # pragma: no cover


class _Files:
    """A certificate's files, and what they were when they were last looked at."""

    def __init__(
        self, context: ssl.SSLContext, cert: str | os.PathLike[str], key: str | os.PathLike[str] | None
    ) -> None:
        self._context = context
        self._cert = check_path("cert", cert)
        self._key = None if key is None else check_path("key", key)
        self._seen: _State = self._look()
        self._lock = trio.Lock()

    async def look(self) -> None:
        """Load the files if they have changed."""
        if self._look() != self._seen:
            await self.load()

    async def obey(self, signals: AsyncIterable[object]) -> None:
        """Load the files at each item."""
        async for _ in signals:
            await self.load()

    async def load(self) -> None:
        """Load the files, or log why not."""
        async with self._lock:
            self._seen = self._look()
            try:
                await trio.to_thread.run_sync(self._load, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
                self._load(self._context)  # not in a thread: handshakes use the context in this one
            except (OSError, ValueError) as exc:
                logger.error("the certificate in %s stays as it was: %s", self._cert, _reason(exc))
            else:
                logger.info("the certificate in %s was loaded again", self._cert)

    def _load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self._cert, self._key, password=_no_password)

    def _look(self) -> _State:
        found = []
        for path in (self._cert, self._key):
            try:
                facts = os.stat(path) if path is not None else None
            except OSError:
                facts = None
            found.append((facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns) if facts else (0, 0, 0, 0))
        return tuple(found)


def _no_password() -> str:
    # Without this OpenSSL would ask for a password at the terminal.
    raise ValueError("the key is protected by a password")


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        # OpenSSL gives a reason for a key of another certificate, and "PEM lib" for any other error.
        return error.reason.replace("_", " ").lower() if error.reason else "no certificate and private key in PEM form"
    return f"{error.filename or ''}: {error.strerror}".strip(": ") if isinstance(error, OSError) else str(error)
