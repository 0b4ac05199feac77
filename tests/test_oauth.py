"""Access tokens: from a token endpoint, kept, renewed, and used to log in to a server that knows XOAUTH2."""

from __future__ import annotations

from typing import Any

import httpx  # noqa: ASYNC127
import pytest
import trio
import trio.testing
from token_server import TokenServer, open_token_server

import trio_smtp
from trio_smtp import AuthenticationError, ConnectError, OAuth, PoolConfig, ServerConfig, SMTPTimeoutError, Stage
from trio_smtp.oauth import ClientCredentials, RefreshToken
from trio_smtp.oauth import _providers as module
from trio_smtp.testing import open_server

SECRETS = ("s3cret-of-the-app", "s3cret-refresh")
APP, REFRESH = SECRETS


@pytest.fixture
async def endpoint():
    async with open_token_server() as server:
        yield server


def application(endpoint: TokenServer, **options: Any) -> ClientCredentials:
    return ClientCredentials(endpoint.url, "app", APP, **options)


def person(endpoint: TokenServer, **options: Any) -> RefreshToken:
    return RefreshToken(endpoint.url, "app", REFRESH, **options)


# -- what is asked


async def test_client_credentials(endpoint: TokenServer) -> None:
    provider = application(endpoint, scope="mail", parameters={"audience": "smtp"})
    token, left = await provider()
    assert token == "token1"
    assert left == pytest.approx(3600 - module.MARGIN, abs=1)
    assert endpoint.forms == [
        {
            "grant_type": "client_credentials",
            "scope": "mail",
            "audience": "smtp",
            "client_id": "app",
            "client_secret": APP,
        }
    ]


async def test_a_refresh_token(endpoint: TokenServer) -> None:
    assert (await person(endpoint)())[0] == "token1"
    assert (await person(endpoint, client_secret=APP, scope="mail")())[0] == "token2"
    assert endpoint.forms == [
        {"grant_type": "refresh_token", "refresh_token": REFRESH, "client_id": "app"},
        {
            "grant_type": "refresh_token",
            "refresh_token": REFRESH,
            "client_id": "app",
            "client_secret": APP,
            "scope": "mail",
        },
    ]


async def test_the_secret_in_a_header(endpoint: TokenServer) -> None:
    await application(endpoint, secret_in="header")()
    assert endpoint.forms == [{"grant_type": "client_credentials", "basic": f"app:{APP}"}]


def rewired(endpoint: TokenServer, seen: list[str]) -> httpx.AsyncClient:
    """A client that asks the endpoint of the test, whatever the URL."""

    class Transport(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(str(request.url))
            request.url = httpx.URL(endpoint.url)
            request.headers["host"] = request.url.netloc.decode()
            return await super().handle_async_request(request)

    return httpx.AsyncClient(transport=Transport())


async def test_presets(endpoint: TokenServer) -> None:
    seen: list[str] = []
    async with rewired(endpoint, seen) as http:
        await RefreshToken.google("app", APP, REFRESH, http=http)()
        await RefreshToken.microsoft365("app", REFRESH, http=http)()
        await RefreshToken.microsoft365("app", REFRESH, tenant="example.com", client_secret=APP, http=http)()
        await ClientCredentials.microsoft365("example.com", "app", APP, http=http)()
    assert seen == [
        "https://oauth2.googleapis.com/token",
        "https://login.microsoftonline.com/common/oauth2/v2.0/token",
        "https://login.microsoftonline.com/example.com/oauth2/v2.0/token",
        "https://login.microsoftonline.com/example.com/oauth2/v2.0/token",
    ]
    assert [form.get("scope") for form in endpoint.forms] == [
        None,
        "https://outlook.office.com/SMTP.Send offline_access",
        "https://outlook.office.com/SMTP.Send offline_access",
        "https://outlook.office365.com/.default",
    ]
    assert [form.get("client_secret") for form in endpoint.forms] == [APP, None, APP, APP]


# -- how long a token is kept


@pytest.mark.parametrize(
    ("life", "kept"),
    [(3600, 3540), ("3600", 3540), (600, 540), (100, 90), (10**9, 86340), (None, 270), ("soon", 270), (0, 0), (-1, 0)],
)
async def test_a_token_is_kept_until_shortly_before_it_expires(
    endpoint: TokenServer, monkeypatch: pytest.MonkeyPatch, life: Any, kept: float
) -> None:
    endpoint.life = life
    provider = application(endpoint)
    token, left = await provider()
    assert token == "token1"
    assert left == pytest.approx(kept)
    if not kept:
        assert (await provider())[0] == "token2"
        return
    ends = provider._ends
    monkeypatch.setattr(provider, "_ends", trio.current_time() + 0.5 * kept)
    token, left = await provider()
    assert token == "token1"
    assert left == pytest.approx(0.5 * kept, abs=1)
    assert ends - trio.current_time() == pytest.approx(kept, abs=1)
    monkeypatch.setattr(provider, "_ends", trio.current_time())
    assert (await provider())[0] == "token2"


async def test_a_token_that_was_refused_is_not_given_again(endpoint: TokenServer) -> None:
    provider = application(endpoint)
    assert (await provider())[0] == "token1"
    provider.forget("another")
    assert (await provider())[0] == "token1"
    provider.forget("token1")
    assert (await provider())[0] == "token2"


async def test_one_request_for_all_who_wait(endpoint: TokenServer) -> None:
    provider = application(endpoint)
    tokens: list[str] = []
    endpoint.gate = trio.Event()

    async def want() -> None:
        tokens.append((await provider())[0])

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(want)
        await endpoint.asked.wait()
        endpoint.gate.set()
    assert tokens == ["token1"] * 10
    assert (len(endpoint.forms), endpoint.most) == (1, 1)


async def test_when_who_asks_is_cancelled_another_asks(endpoint: TokenServer) -> None:
    provider = application(endpoint)
    endpoint.gate = trio.Event()
    tokens: list[str] = []

    async def want() -> None:
        tokens.append((await provider())[0])

    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:

            async def ask() -> None:
                nursery.start_soon(want)
                await endpoint.asked.wait()
                scope.cancel()

            nursery.start_soon(ask)
            await provider()
        assert scope.cancelled_caught
        endpoint.gate.set()
    assert len(tokens) == 1


async def test_a_new_refresh_token_is_used_and_kept(endpoint: TokenServer) -> None:
    kept: list[str] = []

    async def keep(token: str) -> None:
        await trio.lowlevel.checkpoint()
        kept.append(token)

    provider = person(endpoint, keep=keep)
    endpoint.answers = [(200, {"access_token": f"a{n}", "expires_in": 0, "refresh_token": f"r{n}"}) for n in (1, 1, 2)]
    for _ in range(3):
        await provider()
    assert kept == ["r1", "r2"]
    assert [form["refresh_token"] for form in endpoint.forms] == [REFRESH, "r1", "r1"]
    await provider()
    assert endpoint.forms[-1]["refresh_token"] == "r2"


async def test_a_new_refresh_token_is_kept_although_the_caller_was_cancelled(endpoint: TokenServer) -> None:
    kept: list[str] = []
    scope = trio.CancelScope()

    async def keep(token: str) -> None:
        scope.cancel()
        await trio.lowlevel.checkpoint()
        kept.append(token)

    endpoint.answers = [(200, {"access_token": "a", "refresh_token": "r"})]
    with scope:
        await person(endpoint, keep=keep)()
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert kept == ["r"]


# -- what the endpoint may do


@pytest.mark.parametrize(
    ("status", "answer", "kind", "words"),
    [
        (
            400,
            {"error": "invalid_grant", "error_description": "Token has been\nrevoked"},
            AuthenticationError,
            "revoked",
        ),
        (401, {"error": "invalid_client"}, AuthenticationError, "invalid_client"),
        (403, b"<html>", AuthenticationError, "status 403"),
        (400, {"error": ["x"], "error_description": {}}, AuthenticationError, "status 400"),
        (200, {"token_type": "Bearer"}, AuthenticationError, "no bearer token"),
        (200, {"access_token": "x", "token_type": "mac"}, AuthenticationError, "no bearer token"),
        (200, {"access_token": 1}, AuthenticationError, "no bearer token"),
        (200, {"access_token": ""}, AuthenticationError, "no bearer token"),
        (200, b"", ConnectError, "not JSON"),
        (200, b"[" * 100_000, ConnectError, "not JSON"),
        (200, [1], ConnectError, "not JSON"),
        (200, b"x" * (module.MAX_ANSWER + 1), ConnectError, "more than 262144 octets"),
        (301, b"", ConnectError, "status 301"),
        (429, {"error": "slow_down"}, ConnectError, "status 429"),
        (408, b"", ConnectError, "status 408"),
        (500, {"error": "server_error"}, ConnectError, "status 500"),
        (503, b"", ConnectError, "status 503"),
    ],
)
async def test_an_endpoint_that_gives_no_token(
    endpoint: TokenServer, status: int, answer: Any, kind: type[Exception], words: str
) -> None:
    endpoint.answers = [(status, answer)]
    provider = person(endpoint, client_secret=APP)
    with pytest.raises(kind, match=words) as caught:
        await provider()
    error = caught.value
    assert isinstance(error, trio_smtp.SMTPError)
    assert error.stage is Stage.AUTH
    assert str(error).isprintable()
    assert not any(secret in f"{error!r}{error}" for secret in SECRETS)
    assert len(endpoint.forms) == 1  # a redirection is not followed
    assert (await provider())[0] == "token2"  # nothing of it is kept


async def test_an_endpoint_that_is_not_there() -> None:
    async with open_token_server() as gone:
        pass
    with pytest.raises(ConnectError, match="token endpoint at"):
        await application(gone)()


async def test_an_endpoint_that_does_not_answer(endpoint: TokenServer, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint.gate = trio.Event()
    monkeypatch.setattr(module, "REQUEST_TIMEOUT", 0.05)
    with pytest.raises(SMTPTimeoutError, match=r"within 0\.05 seconds"):
        await application(endpoint)()


@pytest.mark.parametrize(
    "url",
    ["http://example.com/token", "ftp://127.0.0.1/", "example.com", "", "https://", "http://127.0.0.1.evil.test/"],
)
def test_secrets_do_not_leave_in_clear(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        ClientCredentials(url, "app", APP)


def test_wrong_arguments() -> None:
    url = "https://example.com/token"
    with pytest.raises(ValueError, match="secret_in"):
        ClientCredentials(url, "app", APP, secret_in="query")  # type: ignore[arg-type]
    for tenant in ("", "a/b", "ü", "a?b"):
        with pytest.raises(ValueError, match="tenant"):
            RefreshToken.microsoft365("app", REFRESH, tenant=tenant)
    for arguments in ((None, "app", APP), (url, None, APP), (url, "app", 1)):
        with pytest.raises(TypeError):
            ClientCredentials(*arguments)
        with pytest.raises(TypeError):
            RefreshToken(arguments[0], arguments[1], REFRESH if arguments[2] == APP else None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="keep must be an async callable or None, not 'file'"):
        RefreshToken(url, "app", REFRESH, keep="file")  # type: ignore[arg-type]
    for parameters in (5, 0, "audience", ["audience"], {"audience": 5}, {5: "audience"}):
        with pytest.raises(TypeError, match="parameters must be a mapping of str to str, not"):
            ClientCredentials(url, "app", APP, parameters=parameters)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="parameters must be a mapping of str to str, not"):
            RefreshToken(url, "app", REFRESH, parameters=parameters)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="scope must be a str or None, not int"):
        ClientCredentials(url, "app", APP, scope=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"http must be an httpx\.AsyncClient or None, not 5"):
        ClientCredentials(url, "app", APP, http=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        RefreshToken.microsoft365("app", REFRESH, tenant=None)  # type: ignore[arg-type]


def test_no_secret_is_shown() -> None:
    shown = repr(RefreshToken.google("app", APP, REFRESH)) + repr(ClientCredentials.microsoft365("t.test", "app", APP))
    assert "<trio_smtp.oauth.RefreshToken 'app' at oauth2.googleapis.com>" in shown
    assert not any(secret in shown for secret in SECRETS)


# -- logging in


class Mail(trio_smtp.Handler):
    """Takes mail from those whose token is good."""

    def __init__(self) -> None:
        self.good: set[str] = set()
        self.seen: list[tuple[str, str | None]] = []
        self.messages = 0

    async def on_auth(self, session: trio_smtp.Session, credentials: trio_smtp.Credentials) -> bool:
        self.seen.append((credentials.mechanism, credentials.token))
        return credentials.username == "me@x.test" and credentials.token in self.good

    async def on_data(self, session: trio_smtp.Session, envelope: trio_smtp.Envelope, body: trio_smtp.Body) -> None:
        await body.read()
        self.messages += 1


def mail_server(handler: Mail, *mechanisms: str) -> Any:
    config = ServerConfig(auth="required", allow_insecure_auth=True, auth_mechanisms=mechanisms)
    return open_server(handler, config=config)


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
async def test_a_pool_logs_in_with_one_token(endpoint: TokenServer, mechanism: str) -> None:
    handler = Mail()
    handler.good = {"token1"}
    async with mail_server(handler, mechanism) as server:
        auth = OAuth("me@x.test", person(endpoint))
        options = {**server.client_options, "auth": auth, "allow_insecure_auth": True}
        config = PoolConfig(max_connections=4, max_messages=1)
        async with (
            trio_smtp.open_pool(server.host, server.port, config=config, **options) as pool,
            pool.send_many(("a@x.test", ["b@y.test"], b"hi\r\n") for _ in range(20)) as outcomes,
        ):
            assert [outcome.error async for outcome in outcomes] == [None] * 20
        async with trio_smtp.open_client(server.host, server.port, **options):
            pass  # another user of the same provider
    assert handler.messages == 20
    assert len(handler.seen) == 21
    assert set(handler.seen) == {(mechanism, "token1")}
    assert len(endpoint.forms) == 1


async def test_a_token_that_the_server_refuses_is_renewed_once_for_all(endpoint: TokenServer) -> None:
    handler = Mail()
    handler.good = {"token2"}
    provider = application(endpoint)
    async with mail_server(handler, "XOAUTH2") as server:
        options = {**server.client_options, "auth": OAuth("me@x.test", provider), "allow_insecure_auth": True}
        async with (
            trio_smtp.open_pool(server.host, server.port, max_connections=3, **options) as pool,
            pool.send_many(("a@x.test", ["b@y.test"], b"hi\r\n") for _ in range(10)) as outcomes,
        ):
            assert [outcome.error async for outcome in outcomes] == [None] * 10
        assert len(endpoint.forms) == 2
        handler.good = set()
        with pytest.raises(AuthenticationError):
            async with trio_smtp.open_client(server.host, server.port, **options):
                raise AssertionError("it was let in")
        assert len(endpoint.forms) == 3
    assert handler.messages == 10


async def test_a_pool_tries_again_when_the_endpoint_was_unwell(endpoint: TokenServer) -> None:
    handler = Mail()
    handler.good = {"token2"}
    endpoint.answers = [(503, b"")]
    async with mail_server(handler, "XOAUTH2") as server:
        options = {**server.client_options, "auth": OAuth("me@x.test", person(endpoint)), "allow_insecure_auth": True}
        config = PoolConfig(retry_delay=0)
        async with trio_smtp.open_pool(server.host, server.port, config=config, **options) as pool:
            await pool.send("a@x.test", ["b@y.test"], b"hi\r\n")
        endpoint.answers = [(400, {"error": "invalid_grant"})] * 5
        options["auth"] = OAuth("me@x.test", person(endpoint))
        async with trio_smtp.open_pool(server.host, server.port, config=config, **options) as pool:
            with pytest.raises(AuthenticationError, match="invalid_grant") as caught:
                await pool.send("a@x.test", ["b@y.test"], b"hi\r\n")
    assert caught.value.delivery is trio_smtp.Delivery.NOT_SENT
    assert handler.messages == 1
    assert len(endpoint.forms) == 3
