"""Each program in examples/ is run, against what it is for where that can be had."""

from __future__ import annotations

import asyncio
import base64
import http.server
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import smtplib
import subprocess
import sys
import threading
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from pages import blocks, read_page, run

import trio_smtp
from trio_smtp.testing import Certificates, make_certificates, open_server, open_sink, virtual_network

EXAMPLES = Path(__file__).parent.parent / "examples"
LETTER = b"From: me@example.com\r\nTo: you@example.com\r\nSubject: Hi\r\n\r\nHello!\r\n"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"example_{Path(name).name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


async def send(port: int, recipients: list[str], content: bytes = LETTER, **options: Any) -> trio_smtp.SendResult:
    async with trio_smtp.open_client("localhost", port, **options) as client:
        return await client.send("me@example.com", recipients, content)


def test_every_example_is_run():
    tests = "\n".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py"))
    names = {path.relative_to(EXAMPLES).with_suffix("").as_posix() for path in EXAMPLES.rglob("*.py")}
    missing = {name for name in names if f'load("{name}")' not in tests and f"{name}.py" not in tests}
    assert not missing


class _Web(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        octets = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posts.append(json.loads(octets))  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def web():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Web) as server:
        server.posts, server.status = [], 204  # type: ignore[attr-defined]
        thread = threading.Thread(target=partial(server.serve_forever, 0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_webhook(web):
    httpx = pytest.importorskip("httpx")
    example = load("webhook")
    url = f"http://127.0.0.1:{web.server_port}/hook"
    async with httpx.AsyncClient() as client, open_server(example.Webhook(url, client)) as server:
        await send(server.port, ["you@example.com"])
        with pytest.raises(trio_smtp.RecipientsRefusedError):
            await send(server.port, ["you@elsewhere.example"])
        web.status = 500
        with pytest.raises(trio_smtp.MessageRefusedError) as caught:
            await send(server.port, ["you@example.com"])
        assert caught.value.reply is not None
        assert caught.value.reply.code == 451
    assert web.posts[0] == {
        "from": "me@example.com",
        "to": ["you@example.com"],
        "subject": "Hi",
        "text": "Hello!\r\n",
        "attachments": [],
    }


async def test_webhook_receiver(capsys):
    httpx = pytest.importorskip("httpx")
    with http.server.HTTPServer(("127.0.0.1", 0), load("webhook_receiver").Hook) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        async with httpx.AsyncClient() as client:
            answer = await client.post(f"http://127.0.0.1:{server.server_port}/", json={"subject": "Hi"})
        thread.join()
    assert answer.status_code == 204
    assert capsys.readouterr().out == '{\n  "subject": "Hi"\n}\n'


async def test_newsletter():
    pytest.importorskip("rich")
    example = load("newsletter")
    readers = [f"{n}@example.com" for n in range(30)]
    async with open_sink() as sink:
        sink.refuse("rcpt", 550, "gone", "5.1.1", address="7@example.com")
        failed = await example.main(sink.host, sink.port, readers)
    assert {reader: error.delivery for reader, error in failed.items()} == {"7@example.com": "refused"}
    assert len(sink.messages) == 29


async def test_submission_server():
    example = load("submission_server")
    certificates = make_certificates()
    handler = example.Submission({"me": example.new_user("secret", "me@example.com")})
    async with open_server(handler, config=example.CONFIG, tls="starttls", certificates=certificates) as server:

        def with_smtplib(password: str, sender: str) -> None:
            with smtplib.SMTP("localhost", server.port, timeout=20) as client:
                client.starttls(context=certificates.client_context())
                client.login("me", password)
                client.sendmail(sender, ["you@example.org"], LETTER)

        await trio.to_thread.run_sync(with_smtplib, "secret", "me@example.com")
        with pytest.raises(smtplib.SMTPAuthenticationError):
            await trio.to_thread.run_sync(with_smtplib, "wrong", "me@example.com")
        with pytest.raises(smtplib.SMTPSenderRefused):
            await trio.to_thread.run_sync(with_smtplib, "secret", "other@example.com")
        with pytest.raises(trio_smtp.AuthenticationError):
            await send(
                server.port,
                ["you@example.com"],
                tls="starttls",
                auth=("unknown", "x"),
                ssl_context=certificates.client_context(),
            )
        with pytest.raises(trio_smtp.SMTPError, match="STARTTLS"):
            await send(server.port, ["you@example.com"], tls="none")


async def test_submission_server_listens_twice(nursery):
    """STARTTLS on one port, TLS from the start on the other."""
    example = load("submission_server")
    certificates = make_certificates()
    users = {"me": example.new_user("secret", "me@example.com")}
    async with open_sink() as one, open_sink() as other:
        ports = (one.port, other.port)  # free after the block
    nursery.start_soon(example.main, certificates.server_context(), users, *ports)
    context = certificates.client_context()
    for port, tls in zip(ports, ("starttls", "implicit"), strict=True):
        with trio.fail_after(20):
            await listening(port)
            await send(port, ["you@example.org"], tls=tls, auth=("me", "secret"), ssl_context=context)
    nursery.cancel_scope.cancel()


async def listening(port: int) -> None:
    while True:
        try:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
        except OSError:
            await trio.lowlevel.checkpoint()
        else:
            await stream.aclose()
            return


async def test_per_recipient(capsys):
    example = load("per_recipient")
    handler = example.Mailboxes({"a@example.com": 1_000_000, "full@example.com": 0})
    async with open_server(handler) as server:
        result = await send(server.port, ["a@example.com", "full@example.com", "unknown@example.com"])
    assert result.accepted == ["a@example.com"]
    assert {address: reply.code for address, reply in result.refused.items()} == {
        "full@example.com": 452,
        "unknown@example.com": 550,
    }
    assert capsys.readouterr().out == f"{len(LETTER)} octets for a@example.com\n"


async def test_stream_to_file(tmp_path):
    example = load("stream_to_file")
    letter = LETTER + b"0123456789\r\n" * 100_000
    async with open_server(example.Spool(tmp_path)) as server:
        await send(server.port, ["you@example.com"], letter)
        async with trio_smtp.open_client("127.0.0.1", server.port) as client:
            with trio.CancelScope() as given_up:
                async with client.transaction("me@example.com", ["you@example.com"]) as message:
                    await message.send_all(letter)
                    given_up.cancel()
                    await trio.lowlevel.checkpoint()
    [path] = tmp_path.iterdir()
    assert path.suffix == ".eml"
    assert path.read_bytes() == letter


async def test_lmtp_for_postfix():
    example = load("lmtp_for_postfix")
    handler = example.Mailboxes()
    full = [bytes(example.QUOTA)]
    handler.mailboxes["you@example.com"] = full
    async with open_server(handler, config=example.CONFIG) as server:
        result = await send(server.port, ["me@example.com", "you@example.com", "nobody@example.com"], lmtp=True)
    assert result.accepted == ["me@example.com"]
    assert {address: reply.code for address, reply in result.refused.items()} == {
        "you@example.com": 452,
        "nobody@example.com": 550,
    }
    assert handler.mailboxes == {"me@example.com": [LETTER], "you@example.com": full}


async def test_behind_haproxy(capsys):
    example = load("behind_haproxy")
    async with open_server(example.Handler(), config=example.CONFIG) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
        await stream.send_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n")
        async with trio_smtp.open_client("127.0.0.1", stream=stream, tls="none") as client:
            await client.send("me@example.com", ["you@example.com"], LETTER)
    assert capsys.readouterr().out == "192.0.2.7 (PROXY header, version 1)\n"


async def test_with_other_services(capsys, nursery):
    example = load("with_other_services")
    [listener, *_] = await nursery.start(example.main, 0)
    await send(listener.socket.getsockname()[1], ["you@example.com"])
    os.kill(os.getpid(), signal.SIGTERM)
    with trio.fail_after(20):
        while nursery.child_tasks:  # main() ends by itself
            await trio.lowlevel.checkpoint()
    assert capsys.readouterr().out == f"processing {len(LETTER)} octets\n"


async def test_direct_to_mx(monkeypatch, nursery):
    pytest.importorskip("dns")
    import dns.asyncresolver
    import dns.message
    import dns.rcode
    import dns.rdatatype
    import dns.rrset

    example = load("direct_to_mx")
    records = {"example.org": ["20 unused.invalid.", "10 localhost."], "null.example": ["0 ."]}

    async def answer_questions(socket: Any) -> None:
        """A name server for MX records, as small as can be."""
        while True:
            octets, peer = await socket.recvfrom(512)
            query = dns.message.from_wire(octets)
            name = query.question[0].name
            response = dns.message.make_response(query)
            mx = records.get(name.to_text().rstrip("."), [])
            if name.to_text() == "gone.example.":
                response.set_rcode(dns.rcode.NXDOMAIN)
            if mx:
                response.answer.append(dns.rrset.from_text(name, 60, "IN", dns.rdatatype.MX, *mx))
            await socket.sendto(response.to_wire(), peer)

    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as socket:
        await socket.bind(("127.0.0.1", 0))
        nursery.start_soon(answer_questions, socket)
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port = ["127.0.0.1"], socket.getsockname()[1]
        monkeypatch.setattr(dns.asyncresolver, "Resolver", lambda: resolver)
        async with open_sink() as sink:
            with trio.fail_after(20):
                result = await example.main("me@example.com", "you@example.org", LETTER, sink.port)
                assert result.accepted == ["you@example.org"]
                result = await example.main("me@example.com", "you@localhost", LETTER, sink.port)  # has no MX
                with pytest.raises(OSError, match="cannot look up"):
                    await example.main("me@example.com", "you@gone.example", LETTER, sink.port)
                with pytest.raises(OSError, match="takes no mail"):
                    await example.main("me@example.com", "you@null.example", LETTER, sink.port)
        nursery.cancel_scope.cancel()
    assert [message.recipients for message in sink.messages] == [("you@example.org",), ("you@localhost",)]


async def test_workers():
    """workers.py, in a process of its own: it serves on one port, and all of its processes end."""
    async with open_sink() as sink:
        port = sink.port  # free after the block
    command = [sys.executable, "-c", f"import workers; workers.main({port}, 2)"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), str(EXAMPLES.parent)])}
    async with trio.open_nursery() as nursery:
        with trio.fail_after(60):
            process = await nursery.start(
                partial(trio.run_process, command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            )
            said = b""
            while not said.endswith(b"\n"):
                said += await process.stdout.receive_some()
            await send(port, ["you@example.com"])
            while said.count(b"\n") < 2:
                said += await process.stdout.receive_some()
            process.terminate()  # run_process() raises if it does not end well
    assert re.fullmatch(rb"listening on port \d+\nprocess \d+: \d+ octets\n", said)
    with pytest.raises(trio_smtp.ConnectError):
        await send(port, ["you@example.com"])


def test_anyio_program():
    anyio = pytest.importorskip("anyio")
    example = load("anyio_program")

    async def main() -> None:
        async with open_sink() as sink:
            await example.main(sink.host, sink.port)
        assert {message.recipients for message in sink.messages} == {("a@example.com",), ("b@example.com",)}

    anyio.run(main, backend="trio")


async def test_content_filter(nursery):
    example = load("content_filter")
    async with open_sink() as sink:
        sink.refuse("end", 554, "not this one", "5.6.0", address=None, times=1)
        [listener, *_] = await nursery.start(example.main, 0, sink.port)
        port = listener.socket.getsockname()[1]
        with pytest.raises(trio_smtp.MessageRefusedError, match="not this one"):
            await send(port, ["you@example.com"])
        await send(port, ["you@example.com"])
        with pytest.raises(trio_smtp.MessageRefusedError, match="no, thank you"):
            await send(port, ["you@example.com"], b"X-Spam: yes\r\n" + LETTER)
        nursery.cancel_scope.cancel()
    assert [message.content for message in sink.messages] == [LETTER]


async def test_relay(nursery):
    example = load("relay")
    async with open_sink() as sink:
        sink.refuse("rcpt", 550, "no such user", "5.1.1", address="b@example.com")
        [listener, *_] = await nursery.start(example.main, sink.host, sink.port, 0)
        result = await send(listener.socket.getsockname()[1], ["a@example.com", "b@example.com"])
        nursery.cancel_scope.cancel()
    assert result.accepted == ["a@example.com"]
    assert str(result.refused["b@example.com"]) == "550 5.1.1 no such user"
    assert [message.content for message in sink.messages] == [LETTER]


async def test_a_relay_with_checks():
    [code] = blocks(read_page("howto/relay.md"))
    checked = run(code)["Checked"]
    async with (
        open_sink() as sink,
        trio_smtp.open_pool(sink.host, sink.port) as pool,
        open_server(checked(pool)) as server,
    ):
        result = await send(server.port, ["a@example.com", "b@elsewhere.example"])
    assert result.accepted == ["a@example.com"]
    assert str(result.refused["b@elsewhere.example"]) == "550 5.7.1 no relaying there"
    assert [message.recipients for message in sink.messages] == [("a@example.com",)]


async def test_unix_socket(capsys, tmp_path):
    path = tmp_path / "mail.sock"
    await load("unix_socket").main(str(path))
    assert capsys.readouterr().out == "23 octets\n"
    assert not path.exists()


async def test_certificates(nursery, tmp_path, autojump_clock, caplog):
    example = load("certificates")
    first, second = make_certificates(), make_certificates()
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def write(certificates: Certificates) -> None:
        leaf = certificates.authority.issue_cert("localhost")
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        key.write_bytes(leaf.private_key_pem.bytes())

    write(first)
    with virtual_network():
        [listener, *_] = await nursery.start(example.main, str(cert), str(key), 0)
        port = listener.socket.getsockname()[1]
        await send(port, ["you@example.com"], tls="starttls", ssl_context=first.client_context())
        write(second)
        caplog.set_level("INFO", logger="trio_smtp")
        await trio.sleep(60)
        while "was loaded again" not in caplog.text:  # in a thread, which the clock does not wait for
            await trio.lowlevel.checkpoint()
        await send(port, ["you@example.com"], tls="starttls", ssl_context=second.client_context())
        nursery.cancel_scope.cancel()


async def test_json_logs(caplog):
    example = load("json_logs")
    with caplog.at_level("DEBUG", logger="trio_smtp"):
        async with open_server(trio_smtp.Discard()) as server:
            await send(server.port, ["you@example.com"])
    documents = [json.loads(example.JSON().format(record)) for record in caplog.records]
    assert any("smtp_session" in document and "MAIL FROM" in document["message"] for document in documents)


def test_oauth_trial(capfd):
    pytest.importorskip("httpx")
    load("oauth_trial").with_tokens()
    assert capfd.readouterr().out == "me@example.com sends 23 octets\n250 2.0.0 OK: queued\n"


@pytest.mark.parametrize("has_sdk", [True, False])
async def test_metrics(has_sdk, capfd, monkeypatch):
    pytest.importorskip("opentelemetry.sdk")
    example = load("metrics")
    if not has_sdk:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    await example.main()
    lines = capfd.readouterr().out.splitlines()
    assert "smtp_server_messages_total 250 accepted 3" in lines
    assert "smtp_pool_messages_total accepted 3" in lines
    assert "smtp_client_commands_total 250 RCPT 3" in lines
    if not has_sdk:
        assert lines[-1] == "no spans: opentelemetry-sdk is not installed"
        return
    spans = [json.loads(line) for line in lines if line.startswith("{")]
    named = {span["context"]["span_id"]: span["name"] for span in spans}
    below = [(span["name"], named[span["parent_id"]]) for span in spans if span["parent_id"]]
    for pair in (("smtp.transaction", "smtp.attempt"), ("smtp.attempt", "smtp.send"), ("smtp.send", "newsletter")):
        assert below.count(pair) == 3


async def test_dkim_signing():
    dkim = pytest.importorskip("dkim")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    private = ed25519.Ed25519PrivateKey.generate()
    key = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    record = b"v=DKIM1; k=ed25519; p=" + base64.b64encode(public)
    async with open_sink() as sink:
        await load("dkim_signing").main(sink.host, sink.port, key)
    assert dkim.verify(sink.messages[0].content, dnsfunc=lambda *args, **options: record)


@pytest.fixture
def token_endpoint(monkeypatch):
    """A provider that answers every request with the token "fresh"; returns the hosts that were asked."""
    httpx = pytest.importorskip("httpx")
    from trio_smtp.oauth import RefreshToken

    asked: list[str] = []

    def answer(request: Any) -> Any:
        asked.append(request.url.host)
        document = {"access_token": "fresh", "refresh_token": "next", "expires_in": 3600, "token_type": "Bearer"}
        return httpx.Response(200, json=document)

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    for preset in ("google", "microsoft365"):
        monkeypatch.setattr(RefreshToken, preset, partial(getattr(RefreshToken, preset), http=http))
    return asked


async def submit(monkeypatch: pytest.MonkeyPatch, main: Any, *args: str) -> list[tuple[str, int]]:
    """Run a program that logs in with the token "fresh"; returns where it would have connected to."""

    class Submission(trio_smtp.Discard):
        async def on_auth(self, session, credentials):
            return credentials.token == "fresh" and credentials.username

    config = trio_smtp.ServerConfig(auth="required", auth_mechanisms=("XOAUTH2",))
    certificates = make_certificates()
    async with open_server(Submission(), config=config, tls="starttls", certificates=certificates) as server:
        opened = trio_smtp.open_pool

        def here(host: str, port: int, **options: Any) -> Any:
            hosts.append((host, port))
            return opened("localhost", server.port, ssl_context=certificates.client_context(), **options)

        hosts: list[tuple[str, int]] = []
        monkeypatch.setattr(trio_smtp, "open_pool", here)
        await main(*args)
    return hosts


async def test_gmail(monkeypatch, token_endpoint, capsys):
    for name in ("CLIENT_ID", "CLIENT_SECRET", "REFRESH_TOKEN"):
        monkeypatch.setenv(name, name.lower())
    hosts = await submit(monkeypatch, load("gmail").main, "me@gmail.com", "you@example.com")
    assert hosts == [("smtp.gmail.com", 587)]
    assert token_endpoint == ["oauth2.googleapis.com"]
    assert capsys.readouterr().out == "250 2.0.0 OK: queued\n"


async def test_microsoft365(monkeypatch, token_endpoint, tmp_path, capsys):
    monkeypatch.setenv("CLIENT_ID", "client_id")
    token_file = tmp_path / "refresh-token.txt"
    token_file.write_text("first\n", encoding="ascii")
    main = load("microsoft365").main
    hosts = await submit(monkeypatch, main, str(token_file), "me@example.com", "you@example.com")
    assert hosts == [("smtp.office365.com", 587)]
    assert token_endpoint == ["login.microsoftonline.com"]
    assert token_file.read_text(encoding="ascii") == "next"
    assert [path.name for path in tmp_path.iterdir()] == ["refresh-token.txt"]
    assert capsys.readouterr().out == "250 2.0.0 OK: queued\n"


# --- programs ported from other libraries: what theirs does, ours does ---


def letter(*recipients: str) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["Subject"], message["To"] = "me@example.com", "Hi", ", ".join(recipients)
    message.set_content("Hello!\n")
    return message


@pytest.mark.parametrize("refused", [[], ["a@example.com"], ["a@example.com", "b@example.com"]])
async def test_ported_from_smtplib(refused):
    async with open_sink() as sink:
        for address in refused:
            sink.refuse("rcpt", 550, "no such user", "5.1.1", address=address)
        message = letter("a@example.com", "b@example.com")
        theirs = await trio.to_thread.run_sync(load("ported/smtplib_theirs").notify, sink.host, sink.port, message)
        ours = await load("ported/smtplib_ours").notify(sink.host, sink.port, message)
    assert ours == theirs == refused


async def test_ported_from_aiosmtplib():
    pytest.importorskip("aiosmtplib")
    async with open_sink() as sink:
        message = letter("a@example.com")
        notify = load("ported/aiosmtplib_theirs").notify
        theirs = await trio.to_thread.run_sync(asyncio.run, notify(sink.host, sink.port, message))
        ours = await load("ported/aiosmtplib_ours").notify(sink.host, sink.port, message)
    assert len(sink.messages) == 2
    assert ours.endswith("refused: []")
    assert theirs.endswith("refused: []")


async def test_ported_from_aiosmtpd(nursery):
    pytest.importorskip("aiosmtpd")
    [listener, *_] = await load("ported/aiosmtpd_ours").main(nursery, 0)
    ours = listener.socket.getsockname()[1]
    async with open_sink() as sink:
        theirs = sink.port  # free after the block
    controller = await trio.to_thread.run_sync(load("ported/aiosmtpd_theirs").main, theirs)
    try:
        for port in (ours, theirs):
            result = await send(port, ["a@example.com", "b@elsewhere.example"])
            assert result.accepted == ["a@example.com"]
            assert str(result.refused["b@elsewhere.example"]) == "550 5.1.2 not relaying to that domain"
            assert str(result.reply) == "250 2.0.0 accepted"
    finally:
        with trio.move_on_after(20, shield=True):
            await trio.to_thread.run_sync(controller.stop)
    nursery.cancel_scope.cancel()


async def test_ported_from_nodemailer(capsys):
    async with open_sink() as sink:
        await load("ported/nodemailer_ours").main(sink.host, sink.port)
    assert sorted(message.recipients for message in sink.messages) == [("a@example.com",), ("b@example.com",)]
    assert capsys.readouterr().out.count("accepted=") == 2


async def test_ported_from_simplesmtp(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with open_server(load("ported/simplesmtp_ours").Save()) as server:
        result = await send(server.port, ["you@example.com"])
    assert str(result.reply) == "250 2.0.0 OK: queued as ABC1"
    assert (tmp_path / "message.txt").read_bytes() == LETTER
    assert "Message to: ['you@example.com']" in capsys.readouterr().out


# --- units and containers ---


def test_the_units_are_valid(tmp_path):
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("no systemd-analyze")
    for unit in (EXAMPLES / "systemd").iterdir():
        text = unit.read_text(encoding="utf-8").replace("/opt/trio-smtp/bin/trio-smtp", sys.executable)
        (tmp_path / unit.name).write_text(text, encoding="utf-8")
    units = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run([tool, "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "trio-smtp" in line]) == (0, [])


def commands() -> list[list[str]]:
    """The command lines of the units and of the container, as arguments of trio-smtp."""
    text = (EXAMPLES / "systemd/trio-smtp.service").read_text(encoding="utf-8").replace("\\\n", " ")
    [unit] = re.findall(r"^ExecStart=(.*)$", text, re.M)
    [entry] = re.findall(r"^ENTRYPOINT (.*)$", (EXAMPLES / "container/Dockerfile").read_text(encoding="utf-8"), re.M)
    return [shlex.split(unit)[1:], json.loads(entry)[1:]]


@pytest.mark.parametrize("command", commands(), ids=["unit", "container"])
def test_their_options_exist(command):
    done = subprocess.run(
        [sys.executable, "-m", "trio_smtp", *command, "--help"],  # an unknown option comes before the help
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
