# Our client and pool send to servers that others wrote; what arrives is compared with what was sent.
from __future__ import annotations

import pytest
import trio
from peer_mail import BODIES, Letter, make_letter
from peer_routes import CLIENT, Route, open_route
from peer_servers import Peer, TLSFiles
from peer_table import ABSENT, cells

import trio_smtp
from trio_smtp import ClientConfig, PoolConfig

LIMIT = 60

# Where CHUNKING is not offered, both are DATA.
BDAT = ClientConfig(local_address=CLIENT)
DATA = ClientConfig(local_address=CLIENT, chunking=False)


async def send(route: Route, letter: Letter, config: ClientConfig = BDAT) -> trio_smtp.SendResult:
    with trio.fail_after(LIMIT):
        async with trio_smtp.open_client("127.0.0.1", route.port, config=config, **route.options) as client:
            return await client.send(letter.sender, letter.recipients, letter.content)


@pytest.mark.parametrize(("server", "case"), cells("to", "plain", "8-bit", "dots", "long lines", "10 MiB"))
async def test_content(peer: Peer, tls_files: TLSFiles, case: str) -> None:
    async with open_route(peer, tls_files) as route:
        for config in (BDAT, DATA):
            letter = make_letter(route.domain, BODIES[case])
            result = await send(route, letter, config)
            assert result.accepted == letter.recipients
            assert await route.arrived(letter) == [(letter.recipients[0], letter.content)]


@pytest.mark.parametrize(("server", "case"), cells("to", "STARTTLS", "AUTH"))
async def test_session(peer: Peer, tls_files: TLSFiles, case: str) -> None:
    async with open_route(peer, tls_files, tls=True, auth=case == "AUTH") as route:
        letter = make_letter(route.domain)
        async with trio_smtp.open_client("127.0.0.1", route.port, config=BDAT, **route.options) as client:
            assert client.tls is not None
            assert client.tls.verified
            await client.send(letter.sender, letter.recipients, letter.content)
        assert await route.arrived(letter) == [(letter.recipients[0], letter.content)]


@pytest.mark.parametrize(("server", "case"), cells("to", "AUTH"))
async def test_wrong_password(peer: Peer, tls_files: TLSFiles, case: str) -> None:
    async with open_route(peer, tls_files, tls=True, auth=True) as route:
        options = {**route.options, "auth": ("me", "wrong")}
        with trio.fail_after(LIMIT), pytest.raises(trio_smtp.AuthenticationError):
            async with trio_smtp.open_client("127.0.0.1", route.port, config=BDAT, **options):
                pass


@pytest.mark.parametrize(("server", "case"), cells("to", "SMTPUTF8"))
async def test_smtputf8(peer: Peer, tls_files: TLSFiles, case: str) -> None:
    async with open_route(peer, tls_files) as route:
        letter = make_letter(route.domain, users=["grüße"], sender="jörg@back.test")
        await send(route, letter)
        assert await route.arrived(letter) == [(letter.recipients[0], letter.content)]


@pytest.mark.parametrize("server", [server for way, server, case in ABSENT if (way, case) == ("to", "SMTPUTF8")])
async def test_smtputf8_is_not_offered(peer: Peer, tls_files: TLSFiles) -> None:
    async with open_route(peer, tls_files) as route:
        letter = make_letter(route.domain, users=["grüße"], sender="jörg@back.test")
        with pytest.raises(trio_smtp.ExtensionNotSupportedError):
            await send(route, letter)


@pytest.mark.parametrize(("server", "case"), cells("to", "100 recipients"))
async def test_recipients(peer: Peer, tls_files: TLSFiles, case: str) -> None:
    async with open_route(peer, tls_files) as route:
        letter = make_letter(route.domain, users=[f"user{n}" for n in range(100)])
        result = await send(route, letter)
        assert result.accepted == letter.recipients
        assert await route.arrived(letter, 100) == sorted((user, letter.content) for user in letter.recipients)


@pytest.mark.parametrize(("server", "case"), cells("to", "partial refusal"))
async def test_refusal(peer: Peer, tls_files: TLSFiles, case: str) -> None:
    async with open_route(peer, tls_files) as route:
        for config in (BDAT, DATA):
            letter = make_letter(route.domain, users=["one", "bad", "two"])
            one, bad, two = letter.recipients
            result = await send(route, letter, config)
            assert result.accepted == [one, two]
            assert result.refused.keys() == {bad}
            assert await route.arrived(letter, 2) == [(one, letter.content), (two, letter.content)]


@pytest.mark.parametrize(("server", "case"), cells("to", "reuse"))
async def test_reuse(peer: Peer, tls_files: TLSFiles, case: str) -> None:
    async with open_route(peer, tls_files) as route:
        letters = [make_letter(route.domain) for _ in range(10)]
        with trio.fail_after(LIMIT):
            async with trio_smtp.open_client("127.0.0.1", route.port, config=BDAT, **route.options) as client:
                for letter in letters[:5]:
                    await client.send(letter.sender, letter.recipients, letter.content)
            async with trio_smtp.open_pool("127.0.0.1", route.port, client_config=DATA, **route.options) as pool:
                for letter in letters[5:]:
                    await pool.send(letter.sender, letter.recipients, letter.content)
                assert pool.statistics().opened == 1
        for letter in letters:
            assert await route.arrived(letter) == [(letter.recipients[0], letter.content)]


@pytest.mark.parametrize(("server", "case"), cells("to", "depth 1", "depth 4, BDAT", "depth 4, DATA"))
async def test_pool(peer: Peer, tls_files: TLSFiles, case: str) -> None:
    depth = 1 if case == "depth 1" else 4
    config = PoolConfig(max_connections=2, pipeline_depth=depth, connect_retries=0)
    async with open_route(peer, tls_files) as route:
        for client_config in {"depth 1": (BDAT, DATA), "depth 4, BDAT": (BDAT,), "depth 4, DATA": (DATA,)}[case]:
            letters = [make_letter(route.domain) for _ in range(20)]
            outcomes = await route.send(letters, config, client_config)
            assert [outcome.error for outcome in outcomes] == [None] * len(letters)
            for letter in letters:
                assert await route.arrived(letter) == [(letter.recipients[0], letter.content)]
