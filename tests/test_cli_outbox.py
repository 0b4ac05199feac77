"""`trio-smtp outbox` and `trio-smtp serve --outbox`, as processes of their own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from cli_process import LIMIT, clean_environment, invoke, run
from outbox_damage import damage
from outbox_stores import one_redis, store_url  # noqa: F401 - fixtures

from trio_smtp import ServerConfig, Stage, open_client
from trio_smtp.outbox import StoreError, open_outbox
from trio_smtp.outbox._states import begin
from trio_smtp.reports import parse_report
from trio_smtp.testing import open_sink

TEXT = b"Subject: hi\n\nhello\n"


@contextmanager
def started(*args):
    """`trio-smtp` as a process; its output is read as it comes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "trio_smtp", *map(str, args)],
        stdout=subprocess.PIPE,
        env=clean_environment({"PYTHONUNBUFFERED": "1"}),
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=LIMIT)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:{tmp_path}/o.db"


def outbox(url, *args, stdin=b"", status=0):
    done = run("outbox", "--store", url, *args, stdin=stdin)
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def put(url, *args):
    return json.loads(outbox(url, "put", "--from", "a@x.test", "--to", "b@y.test", "--json", *args, stdin=TEXT))


async def test_from_put_to_sent(url, tmp_path):
    (tmp_path / "m.eml").write_bytes(TEXT)
    first = put(url, "--key", "k")
    assert first["is_new"] is True
    again = put(url, "--key", "k", str(tmp_path / "m.eml"))
    assert again == {"id": first["id"], "is_new": False}
    assert json.loads(outbox(url, "status", "--json")) == {
        "queued": 1,
        "sending": 0,
        "sent": 0,
        "refused": 0,
        "in_doubt": 0,
        "expired": 0,
        "discarded": 0,
    }
    assert json.loads(outbox(url, "list", "--json", "--state", "queued"))["id"] == first["id"]
    async with open_sink() as sink:
        with started("outbox", "--store", url, "work", "--server", f"{sink.host}:{sink.port}", "--json") as worker:
            with trio.fail_after(LIMIT):
                line = await trio.to_thread.run_sync(worker.stdout.readline)
            event = json.loads(line)
            assert (event["event"], event["id"], event["state"]) == ("settle", first["id"], "sent")
            worker.send_signal(signal.SIGTERM)
            assert await trio.to_thread.run_sync(worker.wait) == 0
    assert len(sink.messages) == 1
    entry = json.loads(outbox(url, "show", first["id"], "--json"))
    assert set(entry) >= {"id", "key", "state", "sender", "recipients", "size", "created", "settled"}
    assert (entry["state"], entry["key"], entry["size"]) == ("sent", "k", len(TEXT))
    recipient = entry["recipients"]["b@y.test"]
    assert (recipient["state"], recipient["attempts"], recipient["reply"]["code"]) == ("sent", 1, 250)
    shown = outbox(url, "show", first["id"])
    assert f"  -- {sink.host}:{sink.port}, no TLS\n  C: MAIL FROM:<a@x.test>" in shown
    assert "  C: RCPT TO:<b@y.test>\n" in shown
    assert "  S: 250 2.0.0 OK: queued as " in shown
    assert "hello" not in shown
    assert "accepted: 250" in shown
    assert "begun" in shown
    assert re.search(r"sent +1\n", outbox(url, "status"))


async def test_a_worker_that_is_ended_leaves_nothing_leased(url):
    ticket = put(url)
    async with open_sink() as sink:
        sink.stall(Stage.MAIL)
        with started(
            "outbox", "--store", url, "work", "--server", f"{sink.host}:{sink.port}", "--lease", "600"
        ) as worker:
            with trio.fail_after(LIMIT):
                while json.loads(await trio.to_thread.run_sync(outbox, url, "status", "--json"))["sending"] == 0:
                    pass
            worker.send_signal(signal.SIGTERM)
            assert await trio.to_thread.run_sync(worker.wait) == 0
    assert json.loads(outbox(url, "show", ticket["id"], "--json"))["state"] == "queued"


def test_resolve(url):
    ticket = put(url)
    entry = json.loads(outbox(url, "resolve", ticket["id"], "discard", "--json"))
    assert entry["state"] == "discarded"
    assert outbox(url, "list", "--state", "queued") == ""
    assert ticket["id"] in outbox(url, "list", "--state", "discarded")


@pytest.fixture
def damaged(store_url):  # noqa: F811
    """An outbox with three messages, of which the second cannot be read."""

    async def prepare():
        async with open_outbox(store_url) as there:
            keys = (None, "k", None)
            tickets = [await there.put("a@x.test", ["b@y.test"], TEXT, key=key) for key in keys]
        await damage(store_url, tickets[1].id, "no JSON")
        return [ticket.id for ticket in tickets]

    return store_url, *trio.run(prepare)


def asked(url, *args, status=0, **options):
    """What the command prints, in this process."""
    done = invoke("outbox", "--store", url, *args, **options)
    assert done.exit_code == status, done.output
    return done


@pytest.mark.parametrize("form", [(), ("--json",), ("--state", "queued")])
def test_list_prints_all_that_can_be_read(damaged, form):
    url, before, second, after = damaged
    done = asked(url, "list", *form, status=71)
    lines = done.stdout.splitlines()
    assert [json.loads(line)["id"] if "--json" in form else line.split()[0] for line in lines] == [before, after]
    assert f"the outbox is damaged: entry {second}: its record cannot be read: " in done.stderr
    assert '"forget ID"' in done.stderr
    assert done.stderr.count("\n") == 1
    assert json.loads(asked(url, "status", "--json").stdout)["queued"] == 3


def test_show_prints_what_is_left_of_it(damaged):
    url, _, second, _ = damaged
    done = asked(url, "show", second, status=71)
    assert f"entry {second}: its record cannot be read: " in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"id       {second}"
    assert lines[1].startswith("damaged  its record cannot be read: ")
    assert lines[2:] == [f"size     {len(TEXT)} octets", 'record   {"id": "m1"', "version  1"]
    found = json.loads(asked(url, "show", second, "--json", status=71).stdout)
    assert found.pop("damaged").startswith("its record cannot be read: ")
    assert found == {"id": second, "kept": {"record": '{"id": "m1"', "version": "1"}, "size": len(TEXT)}


def test_one_that_cannot_be_read_is_forgotten(damaged):
    url, before, second, after = damaged
    assert '"forget ID" deletes it' in asked(url, "resolve", second, "discard", status=71).stderr
    assert asked(url, "forget", second).stdout == f"{second} is forgotten\n"
    assert [line.split()[0] for line in asked(url, "list").stdout.splitlines()] == [before, after]
    assert "can be read" in asked(url, "forget", before, status=2).stderr
    again = asked(url, "put", "--from", "a@x.test", "--to", "b@y.test", "--key", "k", "--json", input=TEXT)
    assert json.loads(again.stdout)["is_new"] is True


def test_one_that_was_set_aside_is_told_and_given_up(damaged):
    url, first, *_ = damaged

    async def set_aside():
        await damage(url, first, "no content")
        async with open_outbox(url) as there:
            with pytest.raises(StoreError, match="set aside"):
                await there._store.take("w", 1, lambda record, now: begin(record, now, "w"))

    trio.run(set_aside)
    assert f"{len(TEXT)} octets, set aside: it has no content\n" in asked(url, "list", status=71).stdout
    assert "\nset aside: it has no content\n" in asked(url, "show", first).stdout
    assert json.loads(asked(url, "show", first, "--json").stdout)["set_aside"] == "it has no content"
    assert "discarded, not sent" in asked(url, "resolve", first, "retry", status=71).stderr
    assert json.loads(asked(url, "resolve", first, "discard", "--json").stdout)["state"] == "discarded"


@pytest.mark.parametrize(
    ("options", "of_mail", "of_rcpt"),
    [
        ("--notify never", {}, {"NOTIFY": "NEVER"}),
        (
            "--notify success,failure,delay --ret hdrs --envid order+4711=1",
            {"RET": "HDRS", "ENVID": "order+2B4711+3D1"},
            {"NOTIFY": "SUCCESS,FAILURE,DELAY"},
        ),
        ("--notify Delay --ret FULL", {"RET": "FULL"}, {"NOTIFY": "DELAY"}),
        ("", {}, {}),
    ],
)
async def test_reports_are_asked_for(store_url, options, of_mail, of_rcpt):  # noqa: F811
    put(store_url, "--to", "c@z.test", *options.split())
    async with open_sink(config=ServerConfig(enabled_extensions=("DSN",))) as sink:
        with started("outbox", "--store", store_url, "work", "--server", f"{sink.host}:{sink.port}"):
            with trio.fail_after(LIMIT):
                (message,) = await sink.wait_for(1)
    sender = message.envelope.sender
    assert {name: value for name, value in sender.params.items() if name != "SIZE"} == of_mail
    assert sender.envid == ("order+4711=1" if "--envid" in options else None)
    assert [recipient.params for recipient in message.envelope.recipients] == [of_rcpt, of_rcpt]


@pytest.mark.parametrize(
    "option",
    [
        ("--notify", "never,success"),
        ("--notify", "sometimes"),
        ("--notify", "success,success"),
        ("--notify", ""),
        ("--ret", "body"),
        ("--envid", ""),
        ("--envid", "é"),
        ("--envid", "a\tb"),
        ("--envid", "x" * 101),
    ],
    ids=" ".join,
)
def test_reports_that_cannot_be_asked_for(url, option):
    done = invoke("outbox", "--store", url, "put", "--from", "a@x.test", "--to", "b@y.test", *option, input=TEXT)
    assert done.exit_code == 2
    assert option[0] in done.output
    assert not Path(url.removeprefix("sqlite:")).exists()


@pytest.mark.parametrize(
    ("store", "command", "status", "words"),
    [
        ("o.db", "show nope", 2, "no entry 'nope'"),
        ("o.db", "resolve nope sent", 2, "no entry 'nope'"),
        ("o.db", "forget nope", 2, "no entry 'nope'"),
        ("bad.db", "status", 71, "damaged"),
        ("o.db", "put --from a@x.test --to no-address", 65, "no-address"),
        ("o.db", "put --from a@x.test --to b@y.test no-file", 66, "no-file"),
    ],
)
def test_what_goes_wrong_is_one_line(tmp_path, store, command, status, words):
    (tmp_path / "bad.db").write_bytes(b"no database" * 100)
    done = invoke("outbox", "--store", f"sqlite:{tmp_path}/{store}", *command.split(), input=TEXT)
    assert done.exit_code == status
    assert words in done.output
    assert done.output.count("\n") == 1


def test_a_store_that_is_none_is_a_usage_error():
    done = invoke("outbox", "--store", "nonsense", "status")
    assert done.exit_code == 2
    assert "sqlite:FILE" in done.output


@pytest.mark.parametrize(
    "args", [("--retry-delays", "x"), ("--rate-limit", "5"), ("--lease", "0"), ("--report-from", "me")]
)
def test_options_of_work_that_make_no_sense(url, args):
    assert invoke("outbox", "--store", url, "work", "--server", "localhost:1", *args).exit_code == 2


async def test_watching(url):
    put(url)
    with started("outbox", "--store", url, "status", "--watch", "--json") as watcher:
        read = watcher.stdout.readline
        with trio.fail_after(LIMIT):
            assert json.loads(await trio.to_thread.run_sync(read))["queued"] == 1
            put(url)
            assert json.loads(await trio.to_thread.run_sync(read))["queued"] == 2
        watcher.send_signal(signal.SIGINT)
        await trio.to_thread.run_sync(watcher.wait)


async def test_a_small_mail_queue(url):
    with started("serve", "--port", "0", "--outbox", url, "--json") as server:
        with trio.fail_after(LIMIT):
            port = json.loads(await trio.to_thread.run_sync(server.stdout.readline))["port"]
            done = await trio.to_thread.run_sync(
                lambda: run(
                    "send", "--server", f"127.0.0.1:{port}", "--from", "a@x.test", "--to", "b@y.test", stdin=TEXT
                )
            )
            message = json.loads(await trio.to_thread.run_sync(server.stdout.readline))
        assert done.returncode == 0
        assert message["queue_id"] in done.stdout
        entry = json.loads(outbox(url, "show", message["queue_id"], "--json"))
        assert (entry["state"], entry["sender"], list(entry["recipients"])) == ("queued", "a@x.test", ["b@y.test"])
        server.send_signal(signal.SIGTERM)
        assert await trio.to_thread.run_sync(server.wait) == 0


@pytest.mark.parametrize("other", [("--discard",), ("--print",), ("--maildir", "x")])
def test_serve_puts_into_one_place(url, other):
    done = invoke("serve", "--outbox", url, *other)
    assert done.exit_code == 2
    assert "--outbox excludes --maildir, --print and --discard" in " ".join(done.output.split())


async def test_a_mail_queue_that_reports(url):
    """DSN is offered with `--dsn`, and the worker with `--report-from` tells the sender what was refused."""
    async with open_sink() as sink:
        sink.refuse(Stage.RCPT, recipient="b@y.test")
        with (
            started("serve", "--port", "0", "--outbox", url, "--dsn", "--json") as server,
            started(
                "outbox", "--store", url, "work", "--server", f"{sink.host}:{sink.port}", "--report-from", "p@mx.test"
            ),
        ):
            with trio.fail_after(LIMIT):
                port = json.loads(await trio.to_thread.run_sync(server.stdout.readline))["port"]
                async with open_client("127.0.0.1", port) as client:
                    assert "DSN" in client.extensions
                    await client.send("a@x.test", ["b@y.test"], TEXT, mail_params={"ENVID": "e1"})
                (message,) = await sink.wait_for(1)
    assert (message.sender, message.recipients) == ("", ("a@x.test",))
    assert parse_report(message.content).envelope_id == "e1"


def test_dsn_is_for_an_outbox():
    done = run("serve", "--dsn")
    assert done.returncode == 2
    assert "--dsn needs --outbox" in " ".join(done.stderr.split())
