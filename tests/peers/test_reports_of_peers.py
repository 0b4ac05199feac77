# Reports that Postfix and Exim make about our messages, and what they say of each recipient.
from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
from peer_mail import LIMIT, Letter, make_letter
from peer_routes import CLIENT, sink_config
from peer_servers import Peer

import trio_smtp
from trio_smtp import ClientConfig, Reply
from trio_smtp.reports import Action, Report, parse_report
from trio_smtp.testing import ReceivedMessage, open_sink

CONFIG = ClientConfig(local_address=CLIENT)


async def report_on(peer: Peer, letter: Letter, name: str, params: dict[str, str], *, code: int = 550) -> bytes:
    """Send through a server to recipients of which our sink refuses one; the report that comes back to it."""
    orcpt = {"NOTIFY": "SUCCESS,FAILURE", "ORCPT": "rfc822;first+2Bone@here.test"}
    async with open_sink(port=peer.relay, config=sink_config()) as sink:
        sink.refuse("rcpt", code, "mailbox\nunavailable", "5.1.1", address="bad@ours.test")
        options = {"tls": "none", "local_hostname": "client.test", "config": CONFIG}
        async with trio_smtp.open_client("127.0.0.1", peer.port, **options) as client:  # type: ignore[arg-type]
            await client.send(
                letter.sender,
                letter.recipients,
                letter.content,
                mail_params=params,
                rcpt_params={letter.recipients[0]: orcpt},
            )
        with trio.fail_after(LIMIT):
            while True:
                for message in sink.messages:
                    if is_report(message, letter):
                        keep(name, message.content)
                        return message.content
                await sink.wait_for(len(sink.messages) + 1)


def is_report(message: ReceivedMessage, letter: Letter) -> bool:
    return message.sender == "" and letter.token in message.content and b"bad@ours.test" in message.content


def keep(name: str, octets: bytes) -> None:
    """For tests/reports, from which the tests of the parser read them."""
    if directory := os.environ.get("TRIO_SMTP_KEEP_REPORTS"):
        Path(directory, f"{name}.eml").write_bytes(octets)


@pytest.mark.parametrize("server", ["postfix", "exim"])
@pytest.mark.parametrize("ret", ["HDRS", "FULL"])
async def test_a_failure(peer: Peer, server: str, ret: str) -> None:
    letter = make_letter("ours.test", users=["bad"])
    octets = await report_on(peer, letter, f"{server}-{ret.lower()}", {"RET": ret, "ENVID": "QQ+2B314159"})
    report: Report = parse_report(octets)
    [found] = [each for each in report.recipients if each.action is Action.FAILED]
    assert found.address == "bad@ours.test"
    plus = "+" if server == "postfix" else "+2B"  # Exim 4.96 does not decode xtext
    assert found.orcpt == ("rfc822", f"first{plus}one@here.test")
    assert found.status is not None
    assert found.status.startswith("5.")
    assert found.remote_mta is not None
    assert isinstance(found.reply, Reply)
    assert found.reply == Reply(550, ["mailbox", "unavailable"], "5.1.1")
    assert report.envelope_id == f"QQ{plus}314159"
    assert report.reporting_mta == f"{server}.test"
    assert report.message_id == f"<{letter.token.decode()}x@ours.test>"
    assert (b"Hello!" in report.returned) is (ret == "FULL")
    assert "bad@ours.test" in report.text
