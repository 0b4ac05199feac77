# trio_smtp.inbox: clients of Mailpit that others wrote, unchanged: mailpit-api of npm, mailpit-api-client of PyPI.
from __future__ import annotations

import importlib.util
import json
import os
import smtplib
import subprocess
from pathlib import Path

import pytest
from cli_process import tool
from inbox_support import PLAIN, rich

from trio_smtp.inbox import run_inbox

PACKAGE = Path(os.environ.get("TRIO_SMTP_PEERS") or "/var/cache/trio-smtp-peers") / "node_modules" / "mailpit-api"

SCRIPT = """
const { MailpitClient } = require(process.argv[1]);
const mailpit = new MailpitClient(process.argv[2]);
async function main() {
  const seen = {};
  seen.info = await mailpit.getInfo();
  seen.configuration = await mailpit.getConfiguration();
  seen.list = await mailpit.listMessages(0, 10);
  const rich = await mailpit.waitForMessage({ query: "subject:Rich has:attachment" });
  seen.message = rich;
  seen.headers = await mailpit.getMessageHeaders(rich.ID);
  seen.source = await mailpit.getMessageSource(rich.ID);
  seen.html = await mailpit.renderMessageHTML(rich.ID);
  seen.text = await mailpit.renderMessageText("latest");
  const blob = await mailpit.getMessageAttachment(rich.ID, rich.Attachments[0].PartID);
  seen.attachment = { type: blob.type, size: (await blob.arrayBuffer()).byteLength };
  seen.tags = await mailpit.getTags();
  seen.sent = await mailpit.sendMessage({
    From: { Email: "me@example.com", Name: "Me" }, To: [{ Email: "you@example.com" }], Bcc: ["eve@example.com"],
    Subject: "From Node", Text: "hello", HTML: "<p>hello</p>",
    Attachments: [{ Content: Buffer.from("abc").toString("base64"), Filename: "a.txt" }],
  });
  seen.waited = await mailpit.waitForMessages({ query: "from:me@example.com", count: 1, exact: true });
  seen.found = (await mailpit.searchMessages({ query: "to:bob@example.com", start: 0, limit: 1 })).messages_count;
  seen.read = await mailpit.setReadStatus({ IDs: [seen.sent.ID], Read: true });
  seen.unread = (await mailpit.listMessages()).unread;
  await mailpit.setReadStatus({ Search: "from:me", Read: false });
  seen.unreadAgain = (await mailpit.listMessages()).unread;
  seen.deleted = await mailpit.deleteMessages({ IDs: [seen.sent.ID] });
  await mailpit.deleteMessagesBySearch({ query: "subject:rich" });
  seen.left = (await mailpit.listMessages()).total;
  await mailpit.deleteMessages();
  seen.none = (await mailpit.listMessages()).total;
  seen.error = await mailpit.getMessageSummary().then(() => "none", (error) => error.message);
  console.log(JSON.stringify(seen));
}
main().catch((error) => { console.error(error); process.exit(1); });
"""


def deliver(inbox, *contents):
    with smtplib.SMTP(inbox.host, inbox.smtp_port, timeout=20) as client:
        for content in contents:
            client.sendmail("ann@example.com", ["bob@example.com"], content)


def test_the_client_of_npm():
    node = tool("node")
    if not PACKAGE.is_dir():
        if os.environ.get("TRIO_SMTP_REQUIRE_TOOLS"):
            pytest.fail("mailpit-api is not installed; tests/peers/install.sh installs it")
        pytest.skip("mailpit-api is not installed; tests/peers/install.sh installs it")
    with run_inbox() as inbox:
        deliver(inbox, rich().as_bytes(), PLAIN)
        done = subprocess.run(
            [node, "-e", SCRIPT, PACKAGE, inbox.url], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert (seen["info"]["Messages"], seen["list"]["total"], seen["configuration"]["ChaosEnabled"]) == (2, 2, False)
    assert seen["message"]["Subject"] == "Rich"
    assert seen["headers"]["Subject"] == ["Rich"]
    assert "Subject: Rich" in seen["source"]
    assert "/part/1.2.2" in seen["html"]
    assert seen["text"] == "How are you?\n"
    assert seen["attachment"]["type"] == "image/png"
    assert seen["tags"] == []
    assert seen["waited"]["messages"][0]["ID"] == seen["sent"]["ID"]
    assert seen["waited"]["messages"][0]["Bcc"] == [{"Name": "", "Address": "eve@example.com"}]
    assert (seen["found"], seen["read"], seen["deleted"]) == (2, "ok", "ok")
    assert (seen["unread"], seen["unreadAgain"], seen["left"], seen["none"]) == (1, 2, 1, 0)
    assert "404" in seen["error"]


def test_the_client_of_pypi():
    if importlib.util.find_spec("mailpit") is None:
        if os.environ.get("TRIO_SMTP_REQUIRE_TOOLS"):
            pytest.fail("mailpit-api-client is not installed")
        pytest.skip("mailpit-api-client is not installed")
    from mailpit.client.api import API

    with run_inbox() as inbox:
        deliver(
            inbox, PLAIN, b"Delivered-To: bob@example.com\r\nContent-Type: text/plain\r\n" + PLAIN, rich().as_bytes()
        )
        api = API(inbox.url, timeout=20)
        listed = api.get_messages(limit=2, start=0)
        assert (listed.total, listed.unread, listed.count, len(listed.messages)) == (3, 3, 2, 2)
        assert listed.messages[0].from_.address == "ann@example.com"
        message = api.get_message(listed.messages[0].id)
        assert (message.subject, message.read, message.attachments[0].file_name) == ("Rich", True, "chart.png")
        assert api.get_message_attachment(message.id, message.attachments[1].part_id).startswith("a,b")
        assert api.get_message_headers(listed.messages[1].id).message_id == ["<one@example.com>"]
        api.put_messages([listed.messages[1].id], "Read", True)
        assert api.get_messages().unread == 1
        api.delete_messages([listed.messages[0].id])
        assert api.get_messages().total == 2
        api.delete_messages([])
        assert api.get_messages().total == 0
