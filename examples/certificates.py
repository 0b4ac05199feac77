"""A server whose certificate is renewed while it runs.

The files are looked at every minute, and at SIGHUP. Sessions notice nothing. A file
that cannot be used is logged, and the old certificate stays.

    python certificates.py fullchain.pem privkey.pem
"""

import signal
import ssl
import sys

import trio

import trio_smtp


async def main(
    cert: str, key: str, port: int = 2525, *, task_status=trio.TASK_STATUS_IGNORED
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    handler = trio_smtp.Discard()  # yours instead
    server = trio_smtp.Server(handler, ssl_context=context)
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                lambda: trio_smtp.watch_certificates(
                    context, cert, key, signals=signals
                )
            )
            listeners = await nursery.start(server.serve, port)
            task_status.started(listeners)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], sys.argv[2])
