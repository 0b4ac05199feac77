# The store in Redis: for any number of workers on any number of machines. It needs coredis, which runs on Trio.
#
# Redis does the work. What is ready stands in a stream for each priority; XREADGROUP gives an entry to one worker,
# XAUTOCLAIM finds those of workers that are not heard of, XACK ends it. A change is a script, which runs alone: it
# replaces the record only if its version is the one that was read, and moves the entry from shelf to shelf. Records,
# contents, keys and the lists of states are ordinary values beside the streams.
#
# Under the prefix P:
#     P:e:<id>       hash      record, begun and marked (the steps since it was written), version, state, shelf,
#                              until (the lease's end), claim, place, priority, key, sid
#     P:c:<id>       string    content
#     P:k:<key>      string    the id of the entry with this key
#     P:later        zset      ids of what is queued until a time, by that time
#     P:q:<number>   stream    ids of what is ready or leased, for each priority; the consumer group is "workers"
#     P:priorities   zset      the priorities that have a stream
#     P:done         zset      ids of what is settled, by that time
#     P:all          zset      ids by place, which is the order of put; P:s:<state>: the same, for each state
#     P:starts       string    the latest starts, for rate limits
#     P:lease        string    the shortest lease of any worker: what has been idle for so long may be another's no more
#     P:bell         stream    one item: something has changed
#
# The clock is the server's: milliseconds since the epoch, from TIME.
#
# Durability is the server's too: a script's effect is on the disk when it is answered only with an append-only file
# that is synced at each write. So any other setting is warned of, once for each opening.
from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import islice
from typing import Any, Final, TypeVar

import coredis
import trio

from .._nursery import open_bare_nursery
from ._combine import Combiner, Request
from ._config import OutboxConfig
from ._damage import DamageError, Kept, Page, claimed, examined, not_damaged, page_of, read, set_aside_error
from ._errors import DamagedEntry, StoreError
from ._kept import begun_to_json, marked_to_json, to_json
from ._rates import Limit, admit
from ._rates import from_json as starts_from_json
from ._rates import to_json as starts_to_json
from ._redis_client import make_client, run_client, text_of, warn_if_forgetful
from ._scripts import COUNTS, FORGET, LOAD, PAGE, PRUNE, RENEW, SAVE, SET_ASIDE, SIZE, SWAP, TAKE
from ._states import Begun, Marked, Record, State, Transition, stored

VERSION: Final = "2"  # 1: before the first release
_PREFIX: Final = "trio-smtp:outbox:"
_BLOCK: Final = 2000  # milliseconds of one wait for the bell; less than the client's patience
_MOST: Final = 200  # records in one call of the script
_SIZE: Final = 1 << 20  # octets of content in one call
_PRUNED: Final = 500  # entries that are forgotten at once

T = TypeVar("T")


@asynccontextmanager
async def open_redis(url: str, config: OutboxConfig) -> AsyncIterator[RedisStore]:
    """Connect, and make the database an outbox if it is none yet.

    Raises:
        StoreError: it cannot be reached, or is of another version.
        ValueError: the address is none of a Redis database.
    """
    client = make_client(url)
    store = RedisStore(client, url, config)
    async with open_bare_nursery(_cancel) as nursery:
        ended = trio.Event()
        try:
            with store.errors():
                await nursery.start(run_client, client, ended)
            await store.prepare()
            nursery.start_soon(store.listen)
            await nursery.start(store.save)
            yield store
        finally:
            store.close()
            ended.set()


def _cancel(nursery: trio.Nursery, failure: BaseException | None) -> None:
    nursery.cancel_scope.cancel(reason="the outbox's block was left")


class _Save(Request):
    """Records to be stored.

    Attributes:
        arguments: of the script.
        answer: what the script says of each, or what went wrong.
    """

    __slots__ = ("answer", "arguments")

    answer: list[tuple[str, str]] | BaseException

    def __init__(self, arguments: list[Any], number: int) -> None:
        super().__init__(number, sum(len(each) for each in arguments if isinstance(each, bytes)))
        self.arguments: Final = arguments


class RedisStore:
    """An outbox in a Redis database; see :class:`Store`."""

    def __init__(self, client: coredis.Redis[bytes], url: str, config: OutboxConfig) -> None:
        self._client: Final = client
        self._address: Final = re.sub(r"//[^/@]*@", "//", url)  # without a password
        self._config: Final = config
        self._save: Final = client.register_script(SAVE)
        self._take: Final = client.register_script(TAKE)
        self._set_aside: Final = client.register_script(SET_ASIDE)
        self._renew: Final = client.register_script(RENEW)
        self._prune: Final = client.register_script(PRUNE)
        self._load: Final = client.register_script(LOAD)
        self._size: Final = client.register_script(SIZE)
        self._page: Final = client.register_script(PAGE)
        self._forget: Final = client.register_script(FORGET)
        self._counts: Final = client.register_script(COUNTS)
        self._swap: Final = client.register_script(SWAP)
        self._saves: Final[Combiner[_Save]] = Combiner(self._save_together, _MOST, _SIZE)
        self._changed = trio.Event()
        self._unsaid: StoreError | None = None  # what happened while something was taken, for the next time
        self._saving: Final = trio.CancelScope(shield=True)
        self._is_closed = False
        self._ahead = time.time() - time.monotonic()  # the server's clock, less this machine's steady one

    def __repr__(self) -> str:
        return f"<RedisStore {self._address}>"

    def close(self) -> None:
        """What is asked of the store from now on is a StoreError."""
        self._is_closed = True
        self._saving.cancel()

    async def prepare(self) -> None:
        """Check the version, and how durable the server is."""
        await self.ask(self._client.set(f"{_PREFIX}version", VERSION, condition=coredis.PureToken.NX))
        found = await self.ask(self._client.get(f"{_PREFIX}version"))
        if found != VERSION.encode():
            words = "none" if found is None else text_of(found)
            raise StoreError(f"the outbox is of version {words}, and this trio_smtp has version {VERSION}")
        await self.ask(self._prune([_PREFIX], [10**15, 1, 10**15]))  # any of its keys of another type is an error here
        self._set_clock(await self.ask(self._renew([_PREFIX], ["", "0"])))
        await warn_if_forgetful(self._client)

    async def ask(self, request: Awaitable[T]) -> T:
        """The answer to a request. Raises StoreError, whatever goes wrong."""
        with self.errors():
            if self._is_closed:
                raise trio.ClosedResourceError("it is closed")
            return await request

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Whatever goes wrong in the block is a StoreError."""
        try:
            yield
        except Exception as exc:
            raise self._failure(str(exc) or type(exc).__name__) from exc

    def _set_clock(self, milliseconds: Any) -> None:
        self._ahead = int(milliseconds) / 1000 - time.monotonic()

    def _now(self) -> float:
        return time.monotonic() + self._ahead

    # -- records

    async def add(self, record: Record, content: bytes) -> tuple[str, bool]:
        (answer,) = await self._store([record], content=content)
        if isinstance(answer, Exception):
            raise answer
        word, entry_id = answer
        return entry_id, word == "new"

    async def _store(
        self, records: Sequence[Record], *, content: bytes = b"", lapsed: bool = False
    ) -> list[tuple[str, str] | Exception]:
        """Have records stored, each if it is still the one that was read.

        Returns:
            For each what came of it, and the id of the entry that is there now; or why it could not be stored.
            ``"new"``: it was. ``"known"``: its key was. ``"moved"``, ``"gone"``: another is there, or none.
        """
        prepared = [await self._prepared(record, content, lapsed) for record in records]
        sound = [each for each in prepared if not isinstance(each, Exception)]
        if not sound:
            return [each for each in prepared if isinstance(each, Exception)]
        request = _Save([word for each in sound for word in (len(each), *each)], len(sound))
        await self._saves.ask(request)
        if isinstance(request.answer, BaseException):  # of the call that was made for all
            raise StoreError(str(request.answer) or repr(request.answer)) from request.answer
        said = iter(request.answer)
        return [each if isinstance(each, Exception) else self._answer(*next(said)) for each in prepared]

    async def save(self, *, task_status: trio.TaskStatus[None]) -> None:  # noqa: ASYNC114 - no context manager's
        """Have saved what is asked for, until closed: whoever is cancelled need not wait for a server that hangs."""
        with self._saving:
            await self._saves.serve(task_status=task_status)

    async def _save_together(self, group: list[_Save]) -> None:
        """What waits shares one call of the script, and one sync."""
        try:
            answer: Any = await self.ask(self._save([_PREFIX], [word for each in group for word in each.arguments]))
        except StoreError as exc:
            for each in group:
                each.answer = exc
            return
        except BaseException as exc:
            for each in group:
                each.answer = exc
            raise
        now, said = answer
        self._set_clock(now)
        answers = iter(said)
        for each in group:
            each.answer = [(text_of(word), text_of(words)) for word, words in islice(answers, each.weight)]

    def _answer(self, word: str, words: str) -> tuple[str, str] | Exception:
        return self._failure(words) if word == "failed" else (word, words)

    async def _prepared(self, record: Record, content: bytes, lapsed: bool) -> list[Any] | Exception:
        """What is said of a record; or why there is nothing to say of it.

        Raises:
            StoreError: of them all.
        """
        try:
            return [*self._arguments(record, lapsed), content, *await self._companions(record)]
        except StoreError:
            raise
        except MemoryError as exc:
            return self._failure(repr(exc))
        except Exception as exc:
            return exc

    def _arguments(self, record: Record, lapsed: bool) -> list[Any]:
        shelf, at = record.shelf()
        step = record.step
        return [
            record.id,
            record.version,
            to_json(record) if step is None else "",
            begun_to_json(step) if isinstance(step, Begun) else "",
            marked_to_json(step) if isinstance(step, Marked) else "",
            record.state.value,
            shelf.value,
            int(at * 1000),
            round(self._config.lease * 1000),
            record.priority,
            record.claim,
            record.key or "",
            int(lapsed),
        ]

    async def _companions(self, record: Record) -> list[Any]:
        if record.companions is None:
            return []
        own = await self.ask(self._client.get(f"{_PREFIX}c:{record.id}"))
        made = record.companions(own or b"")
        return [value for each, text in made for value in (each.id, to_json(each), each.priority, text)]

    async def take(self, worker: str, limit: int, transition: Transition) -> list[tuple[Record, bytes]]:
        self._raise_unsaid()
        lease = round(self._config.lease * 1000)
        said: Any = await self.ask(self._take([_PREFIX], [worker, limit, lease]))
        found, now = said
        self._set_clock(now)
        claims: list[tuple[Record, bytes]] = []
        taken: list[tuple[Record, bytes]] = []
        try:
            for entry_id, *kept, content in found:
                try:
                    _, record = claimed(*kept, content=content, transition=transition, now=self._now())
                    claims.append((record, content or b""))
                except DamageError as exc:
                    await self._put_aside(entry_id, kept[1], exc)
            answers = await self._store([record for record, _ in claims], lapsed=True)
            for (record, content), answer in zip(claims, answers, strict=True):
                if isinstance(answer, Exception):  # it is found again when its lease has ended
                    self._unsaid = self._failure(f"entry {record.id} cannot be taken: {answer!r}")
                elif answer[0] == "new":
                    taken.append((stored(record), content))
        except StoreError as exc:  # what is leased by now is not forgotten
            self._unsaid = exc
        if not taken:
            self._raise_unsaid()
        return taken

    def _failure(self, words: str) -> StoreError:
        return StoreError(f"cannot use the outbox {self._address}: {words}")

    def _raise_unsaid(self) -> None:
        error, self._unsaid = self._unsaid, None
        if error is not None:
            raise error

    async def _put_aside(self, entry_id: bytes, version: bytes, damage: DamageError) -> None:
        await self.ask(self._set_aside([_PREFIX], [entry_id, version]))
        before = () if self._unsaid is None else self._unsaid.damaged
        self._unsaid = set_aside_error(self._address, [*before, DamagedEntry(text_of(entry_id), str(damage))])

    async def change(self, record: Record, transition: Transition) -> Record:
        (answer,) = await self.change_all([(record, transition)])
        if isinstance(answer, Record):
            return answer
        raise answer

    async def change_all(self, changes: Sequence[tuple[Record, Transition]]) -> list[Record | Exception]:
        known = {number: record for number, (record, _) in enumerate(changes)}  # without an answer yet
        answers: dict[int, Record | Exception] = {}
        while known:
            changed: dict[int, Record] = {}
            for number, record in known.items():
                try:
                    changed[number] = changes[number][1](record, self._now())
                except Exception as exc:
                    answers[number] = exc
                    continue
                if changed[number] == record:
                    answers[number] = changed.pop(number)
            known = await self._store_changes(changed, answers)
        return [answers[number] for number in range(len(changes))]

    async def _store_changes(
        self, changed: Mapping[int, Record], answers: dict[int, Record | Exception]
    ) -> dict[int, Record]:
        """Store records; those of which another was there already, as they are now."""
        moved: dict[int, Record] = {}
        said = await self._store(list(changed.values()))
        for (number, record), answer in zip(changed.items(), said, strict=True):
            if isinstance(answer, Exception):
                answers[number] = answer
            elif answer[0] == "new":
                answers[number] = stored(record)
            else:
                try:
                    moved[number] = await self.load(record.id)
                except LookupError as exc:
                    answers[number] = exc
                except StoreError as exc:
                    if not exc.damaged:
                        raise
                    answers[number] = exc  # it alone is damaged
        return moved

    async def renew(self, records: Sequence[Record], worker: str) -> None:
        claims = [word for record in records for word in (record.id, str(record.claim))]
        self._set_clock(await self.ask(self._renew([_PREFIX], [worker, round(self._config.lease * 1000), *claims])))

    async def load(self, entry_id: str) -> Record:
        kept, has_content = await self._find(entry_id)
        try:
            return read(entry_id, kept, has_content)
        except DamageError as exc:
            damage = exc
        size = int(await self.ask(self._size([f"{_PREFIX}c:{entry_id}"])))
        raise examined(entry_id, kept, None if size < 0 else size, damage) from damage

    async def _find(self, entry_id: str) -> tuple[Kept, int | None]:
        """What is kept of an entry, and, if it is set aside, whether its content is there."""
        answer: Any = await self.ask(self._load([_PREFIX], [entry_id]))
        if answer is None:
            raise LookupError(f"the outbox has no entry {entry_id!r}")
        _, *kept, has_content = answer
        return Kept(*kept), has_content

    async def page(self, state: State | None, after: int, limit: int) -> Page:
        which = "all" if state is None else f"s:{state}"
        rows: Any = await self.ask(self._page([_PREFIX], [which, after, limit]))
        return page_of((int(float(place)), text_of(entry_id), *others) for place, entry_id, *others in rows)

    async def forget(self, entry_id: str) -> None:
        while True:
            kept, has_content = await self._find(entry_id)
            try:
                read(entry_id, kept, has_content)
            except DamageError:
                parts = [b"" if part is None else part for part in kept]
                arguments = [entry_id, *parts, *(state.value for state in State)]
                if await self.ask(self._forget([_PREFIX], arguments)):
                    return
            else:
                raise not_damaged(entry_id)

    async def counts(self) -> Mapping[State, int]:
        numbers: Any = await self.ask(self._counts([_PREFIX], [state.value for state in State]))
        return dict(zip(State, map(int, numbers), strict=True))

    async def admit(self, limits: Mapping[str, Limit]) -> float:
        name = f"{_PREFIX}starts"
        while True:
            known = await self.ask(self._client.get(name))
            starts, delay = admit(starts_from_json(known), limits, self._now())
            if await self.ask(self._swap([name], [known or b"", starts_to_json(starts)])):
                return delay

    async def prune(self) -> None:
        keep, lease = round(self._config.keep_done * 1000), round(self._config.lease * 1000)
        await self.ask(self._prune([_PREFIX], [keep, _PRUNED, 10 * lease]))

    # -- changes

    def bell(self) -> trio.Event:
        return self._changed

    async def wait(self, bell: trio.Event, seconds: float) -> None:
        await trio.lowlevel.checkpoint()
        with trio.move_on_after(seconds):
            await bell.wait()

    async def listen(self) -> None:
        """Ring the bell when another has changed something, until cancelled."""
        latest: Any = "0-0"
        while True:
            try:
                answer = await self._client.xread({f"{_PREFIX}bell": latest}, count=1, block=_BLOCK)
            except Exception:  # a caller that asks the store something hears of it
                await trio.sleep(0.5)
                answer = None
            if answer:
                latest = next(iter(answer.values()))[-1].identifier
                self._changed.set()
                self._changed = trio.Event()

    async def time(self) -> float:
        await trio.lowlevel.checkpoint()
        return self._now()
