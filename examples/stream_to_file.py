"""A message of any size goes into a file as it comes: memory stays flat."""

import os
from pathlib import Path

import trio

import trio_smtp


class Spool(trio_smtp.Handler):
    def __init__(self, directory: Path) -> None:
        self.directory = trio.Path(directory)

    async def on_data(self, session, envelope, body):
        name = f"{session.id}-{session.transaction_count}"
        part = self.directory / f"{name}.part"
        try:
            async with await part.open("wb") as file:
                async for chunk in body:
                    await file.write(chunk)
                await file.flush()
                # 250 means: on the disk.
                await trio.to_thread.run_sync(os.fsync, file.wrapped.fileno())
            await part.rename(self.directory / f"{name}.eml")
        except BaseException:  # a client that vanished, a full disk, a cancelled server
            with trio.CancelScope(shield=True):
                await part.unlink(missing_ok=True)
            raise
        return name


if __name__ == "__main__":
    config = trio_smtp.ServerConfig(max_message_size=2 * 1024**3)
    trio.run(lambda: trio_smtp.serve(Spool(Path()), 2525, config=config))
