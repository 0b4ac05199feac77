# trio_smtp.inbox: the page, in a real browser.
from __future__ import annotations

import re
import smtplib
from email.message import EmailMessage
from email.policy import SMTP
from importlib.resources import files

import pytest
from inbox_browser import Browser, Keys, Trap, open_browser
from inbox_support import rich

from trio_smtp.inbox import _mailpit, run_inbox
from trio_smtp.inbox._store import Entry


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(str(tmp_path_factory.mktemp("profile"))) as browser:
        yield browser


@pytest.fixture
def inbox():
    with run_inbox() as inbox:
        yield inbox


@pytest.fixture
def trap():
    trap = Trap()
    yield trap
    trap.close()


def plain(subject="Hello", text="How are you?\n", **fields):
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Ann <ann@example.com>", "bob@example.com", subject
    for name, value in fields.items():
        message[name] = value
    message.set_content(text)
    return message


def deliver(inbox, *messages, recipients=("bob@example.com",)):
    with smtplib.SMTP(inbox.host, inbox.smtp_port, timeout=20) as client:
        for message in messages:
            content = message if isinstance(message, bytes) else message.as_bytes(policy=SMTP)
            client.sendmail("ann@example.com", list(recipients), content)


def subjects(browser: Browser):
    return browser.texts(".row .subject")


def is_open(browser: Browser, subject: str):
    return browser.until(lambda: browser.texts("article .subject") == [subject])


def test_the_empty_page_says_where_to_send_mail_to(browser, inbox):
    browser.open(inbox.url)
    browser.until(lambda: browser.text(".nothing .where") == f"127.0.0.1:{inbox.smtp_port}")
    assert f"EMAIL_PORT = {inbox.smtp_port}" in browser.text(".nothing")
    assert not browser.find("#delete-all").is_enabled()


def test_mail_appears_by_itself(browser, inbox):
    browser.open(inbox.url)
    deliver(inbox, plain("One"))
    browser.until(lambda: subjects(browser) == ["One"])
    deliver(inbox, plain("Two"), rich())
    browser.until(lambda: subjects(browser) == ["Rich", "Two", "One"])
    assert browser.text("#count") == "3"
    assert browser.driver.title == "(3) Inbox"
    assert "Unread. Ann: Rich" in browser.find(".row").get_attribute("aria-label")
    assert [each.is_displayed() for each in browser.all(".row .clip")] == [True, False, False]
    assert "New message from Ann: Rich" in browser.texts("#said")[0]


def test_a_message_is_read_in_all_its_views(browser, inbox):
    deliver(inbox, rich(), recipients=["bob@example.com", "eve@example.com"])
    browser.open(inbox.url)
    browser.click(".row")
    is_open(browser, "Rich")
    people = browser.text(".people")
    assert "Ann <ann@example.com>" in people
    assert re.search(r"Bcc\s+eve@example\.com\s*not in To or Cc", people)
    assert browser.text(".codes button") == "482913"
    with browser.frame():
        assert browser.text("p").startswith("Hello")
        assert browser.run("return document.images[0].naturalWidth") == 2
        assert browser.find("a").get_attribute("rel") == "noopener noreferrer"
    assert browser.find(".view iframe").get_attribute("sandbox") == "allow-popups allow-popups-to-escape-sandbox"
    browser.click("#tab-text")
    browser.until(lambda: browser.find(".view a").get_attribute("href") == "https://example.com/text")
    browser.click("#tab-headers")
    browser.until(lambda: "<rich@example.com>" in browser.text(".view table"))
    browser.click("#tab-source")
    browser.until(lambda: "Content-Type: multipart/mixed" in browser.text(".view pre"))
    browser.click("#tab-attachments")
    browser.until(lambda: browser.texts(".parts a") == ["chart.png", "numbers.csv", "logo"])
    browser.until(lambda: browser.run("return document.querySelector('.parts img').naturalWidth") == 2)
    browser.until(lambda: browser.text(".parts pre") == "a,b\n1,2")
    browser.click("#tab-smtp")
    browser.until(lambda: "RCPT TO:<eve@example.com>" in browser.text(".view pre").replace("rcpt", "RCPT"))
    assert "none: in clear" in browser.text(".view table")
    browser.until(lambda: not browser.find("#count").is_displayed())  # it is read now
    assert browser.complaints() == []


def test_the_frame_can_be_as_wide_as_a_telephone(browser, inbox):
    deliver(inbox, rich())
    browser.open(inbox.url)
    browser.click(".row")
    browser.click(".width")
    assert browser.find(".view iframe").size["width"] == 375
    browser.click(".width")
    assert browser.find(".view iframe").size["width"] > 800


def test_remarks_on_a_message(browser, inbox):
    deliver(inbox, b"From: a@b.test\r\nPrecedence: bulk\r\nContent-Type: text/html\r\n\r\n<p>News</p>\r\n")
    browser.open(inbox.url)
    browser.click(".row")
    browser.click(".warnings summary")
    words = browser.text(".warnings")
    for part in ("no Date field", "no text part", "List-Unsubscribe", "no subject"):
        assert part in words
    assert browser.text("article .subject") == "(no subject)"


def test_search(browser, inbox):
    deliver(inbox, plain("Invoice", "number 4711\n"), plain("Lunch"), rich())
    browser.open(inbox.url)
    browser.until(lambda: len(subjects(browser)) == 3)
    browser.keys("/")
    browser.keys("4711")
    browser.until(lambda: subjects(browser) == ["Invoice"])
    deliver(inbox, plain("Another", "number 4711 again\n"), plain("Dinner"))
    browser.until(lambda: subjects(browser) == ["Another", "Invoice"])  # a search is live, too
    browser.keys(Keys.CONTROL, "a")
    browser.keys("has:attachment")
    browser.until(lambda: subjects(browser) == ["Rich"])
    assert browser.text("#delete-all") == "Delete found"
    browser.keys(Keys.CONTROL, "a")
    browser.keys("nothing like it")
    browser.until(lambda: browser.text("#empty") == "Nothing found.")
    browser.keys(Keys.CONTROL, "a")
    browser.keys("before:yesterday")
    browser.until(lambda: "not a date" in browser.text("#trouble"))
    browser.keys(Keys.CONTROL, "a")
    browser.keys(Keys.DELETE)
    browser.until(lambda: len(subjects(browser)) == 5)
    assert not browser.find("#trouble").is_displayed()


def test_deletion(browser, inbox):
    deliver(inbox, *(plain(name) for name in "abcd"))
    browser.open(inbox.url)
    browser.until(lambda: subjects(browser) == ["d", "c", "b", "a"])
    browser.click(".row")
    is_open(browser, "d")
    browser.click("article .delete")
    browser.until(lambda: subjects(browser) == ["c", "b", "a"])
    is_open(browser, "c")  # the next one
    browser.keys(Keys.DELETE)
    browser.until(lambda: subjects(browser) == ["b", "a"])
    assert [message.message["Subject"] for message in inbox.messages] == ["a", "b"]
    browser.click("#delete-all")
    browser.until(lambda: browser.text(".nothing h2") == "No mail yet")
    assert inbox.messages == []


def test_what_others_delete_or_read_changes_the_page(browser, inbox):
    deliver(inbox, plain("a"), plain("b"))
    browser.open(inbox.url)
    browser.until(lambda: browser.text("#count") == "2")
    inbox._thread.run_sync(lambda: inbox._thread.value._box.mark([inbox._thread.value.messages[0].queue_id], read=True))
    browser.until(lambda: browser.text("#count") == "1")
    browser.click("#read-all")
    browser.until(lambda: not browser.find("#count").is_displayed())
    browser.click(".row")
    is_open(browser, "b")
    inbox.clear()
    browser.until(lambda: browser.text(".nothing h2") == "No mail yet")


def test_marking_as_unread(browser, inbox):
    deliver(inbox, plain("a"))
    browser.open(inbox.url)
    browser.click(".row")
    is_open(browser, "a")
    browser.until(lambda: not browser.all(".row.new"))
    browser.click("article .unread")
    browser.until(lambda: browser.all(".row.new"))
    assert browser.text("#count") == "1"


def test_without_a_mouse(browser, inbox):
    deliver(inbox, *(plain(name) for name in "abc"))
    browser.open(inbox.url)
    browser.until(lambda: subjects(browser) == ["c", "b", "a"])
    browser.run("document.querySelector('#list').focus()")
    browser.keys("j")
    browser.until(lambda: browser.text(".row.chosen .subject") == "b")
    chosen = browser.find("#list").get_attribute("aria-activedescendant")
    assert browser.find(f"#{chosen}").get_attribute("aria-selected") == "true"
    browser.keys(Keys.ARROW_DOWN, "j", "j")
    browser.until(lambda: browser.text(".row.chosen .subject") == "a")
    browser.keys("k", Keys.ARROW_UP)
    browser.until(lambda: browser.text(".row.chosen .subject") == "c")
    browser.keys(Keys.ENTER)
    is_open(browser, "c")
    assert browser.run("return document.activeElement.textContent") == "c"  # a screen reader reads the subject
    browser.keys("j")
    is_open(browser, "b")
    browser.run("document.querySelector('#tab-text').focus()")
    browser.keys(Keys.ARROW_RIGHT)
    browser.until(lambda: browser.find("#tab-headers").get_attribute("aria-selected") == "true")
    browser.keys(Keys.ESCAPE)
    browser.until(lambda: not browser.all("article"))
    assert browser.run("return document.activeElement.id") == "list"
    browser.keys(Keys.DELETE)
    browser.until(lambda: subjects(browser) == ["c", "a"])
    browser.keys("/")
    assert browser.run("return document.activeElement.id") == "query"
    browser.keys("jk", Keys.ESCAPE)  # letters of a query move nothing
    assert browser.find("#query").get_property("value") == "jk"
    assert browser.run("return document.activeElement.id") == "list"


def test_the_browser_s_back_button(browser, inbox):
    deliver(inbox, plain("a"))
    browser.open(inbox.url)
    browser.click(".row")
    is_open(browser, "a")
    url = browser.driver.current_url
    browser.driver.back()
    browser.until(lambda: not browser.all("article"))
    browser.open(url)
    is_open(browser, "a")
    browser.open(f"{inbox.url}/#/0123456789abcdef")
    browser.until(lambda: "not there any more" in browser.text("#reader"))


@pytest.mark.parametrize("dark", [False, True])
def test_on_a_narrow_screen(browser, inbox, dark):
    deliver(inbox, plain("A long subject, " * 20), rich(), plain("x" * 300))
    browser.open(inbox.url, width=375, height=667, dark=dark)
    browser.until(lambda: len(subjects(browser)) == 3)

    def fits():
        return browser.run("return document.documentElement.scrollWidth") <= 375

    assert fits()
    assert all(
        row.rect["x"] >= 0 and row.rect["x"] + row.rect["width"] <= 375 for row in browser.all(".row, .bar button")
    )
    browser.click("#row-1")
    is_open(browser, "Rich")
    assert not browser.find("#messages").is_displayed()
    for tab in ("text", "headers", "source", "attachments", "smtp", "html"):
        browser.click(f"#tab-{tab}")
        assert fits(), tab
    assert all(each.rect["x"] + each.rect["width"] <= 375 for each in browser.all(".tools > *"))
    browser.click(".back")
    browser.until(lambda: browser.find("#messages").is_displayed())
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) is dark
    browser.click("#faults")
    assert fits()
    browser.click("#rules .close button")


def test_ten_thousand_messages(browser, inbox):
    def fill():
        store = inbox._thread.value._box.store
        store._keep = 10_000
        names = ("message_id", "subject", "to", "author", "cc", "bcc", "reply_to", "text", "transcript")
        for number in range(10_000):
            summary = {
                "To": [],
                "Cc": [],
                "Bcc": [],
                "ID": f"{number:x}",
                "From": {"Name": "Ann", "Address": "ann@example.com"},
                "Subject": f"Message {number}",
                "Snippet": "x",
                "Created": "2026-11-27T10:00:00.000Z",
                "Attachments": 0,
            }
            empty = dict.fromkeys(names, "")
            store.add(
                Entry(
                    id=f"{number:x}",
                    created=0,
                    attachments=0,
                    inline=0,
                    summary=summary,
                    facts={},
                    content=b"x",
                    **empty,
                )
            )

    inbox._thread.run_sync(fill)
    browser.open(inbox.url)
    browser.until(lambda: subjects(browser)[:2] == ["Message 9999", "Message 9998"])
    assert len(browser.all(".row")) < 40
    browser.run("document.querySelector('#list').focus()")
    browser.keys(Keys.END)
    browser.until(lambda: subjects(browser)[-1] == "Message 0")
    assert len(browser.all(".row")) < 40
    browser.run("document.querySelector('#list').scrollTop = 5000 * 76")
    browser.until(lambda: "Message 4999" in subjects(browser))
    deliver(inbox, plain("Newest"))
    browser.until(lambda: browser.text("#count") == "10000")  # of 10,001 the oldest went
    assert "Message 4999" in subjects(browser)  # what is read stays in sight
    browser.keys(Keys.HOME)
    browser.until(lambda: subjects(browser)[0] == "Newest")


def test_a_lost_connection_shows_and_comes_back(browser):
    with run_inbox() as inbox:
        ports = inbox.smtp_port, inbox.http_port
        deliver(inbox, plain("before"))
        browser.open(inbox.url)
        browser.until(lambda: subjects(browser) == ["before"])
    browser.until(lambda: browser.text("#live") == "connecting…")
    with run_inbox(*ports) as inbox:
        deliver(inbox, plain("after"))
        browser.until(lambda: browser.text("#live") == "live")
        browser.until(lambda: subjects(browser) == ["after"])


def test_faults_by_the_page(browser, inbox):
    browser.open(inbox.url)
    browser.click("#faults")
    browser.find("#new-rule [name=recipient]").send_keys("*@slow.test")
    browser.find("#new-rule [name=times]").send_keys("1")
    browser.click("#new-rule .primary")
    browser.until(lambda: "to *@slow.test, rcpt: 450 4.2.1 come back later (1 more)" in browser.text("#rule-list"))
    assert inbox.faults == [
        {"stage": "rcpt", "recipient": "*@slow.test", "reply": "450 4.2.1 come back later", "times": 1}
    ]
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        deliver(inbox, plain(), recipients=["b@slow.test"])
    browser.find("#new-rule [name=reply]").clear()
    browser.find("#new-rule [name=reply]").send_keys("250 fine")
    browser.click("#new-rule .primary")
    browser.until(lambda: "reply is a text" in browser.text("#rule-trouble"))
    browser.run(
        "const kind = document.querySelector('#new-rule [name=kind]'); kind.value = 'cut';"
        "kind.dispatchEvent(new Event('change'))"
    )
    browser.find("#new-rule [name=share]").clear()
    browser.find("#new-rule [name=share]").send_keys("50")
    browser.click("#new-rule .primary")
    browser.until(lambda: "50 %" in browser.text("#rule-list"))
    assert inbox.faults[-1]["share"] == 0.5
    browser.click("#rule-list button")
    browser.until(lambda: len(inbox.faults) < 2)
    browser.click("#forget-rules")
    browser.until(lambda: inbox.faults == [])
    browser.click("#rules .close button")


MARKUP = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>"


def test_nothing_of_a_message_becomes_markup(browser, inbox):
    content = (
        f"From: =?utf-8?q?{'=3Cimg_src=3Dx_onerror=3Ddocument.title=3D1=3E'}?= <a@b.test>\r\nTo: bob@example.com\r\n"
        f"Subject: {MARKUP}\r\nX-{'Field'}: {MARKUP}\r\nMIME-Version: 1.0\r\n"
        'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
        f"--b\r\nContent-Type: text/plain\r\n\r\n{MARKUP} https://a.test/{MARKUP}\r\njavascript:alert(1)\r\n"
        "--b\r\nContent-Type: text/html\r\nContent-Disposition: attachment; "
        "filename*=utf-8''%3Cimg%20src%3Dx%20onerror%3Ddocument.title%3D1%3E.html\r\n\r\n" + MARKUP + "\r\n--b--\r\n"
    )
    deliver(inbox, content.encode())
    browser.open(inbox.url)
    browser.click(".row")
    is_open(browser, MARKUP)
    for tab in ("text", "headers", "source", "attachments", "smtp"):
        browser.click(f"#tab-{tab}")
        browser.until(lambda: browser.text(".view").strip() not in ("", "…"))
        assert not browser.all("main img[src=x], main script")
        assert [link for link in browser.all(".view a") if "javascript" in link.get_attribute("href")] == []
    assert browser.driver.title.endswith("Inbox")


def hostile(trap: Trap, *, boundary="b"):
    """HTML that tries to run, and to fetch, in all ways that are known."""
    url = f"http://127.0.0.1:{trap.port}"
    run = f"top.document.title='run';fetch('{url}/ran')"
    return f"""<!doctype html><html manifest="{url}/manifest"><head>
<base href="{url}/base/"><meta http-equiv="refresh" content="0;url={url}/refresh">
<meta http-equiv="Content-Security-Policy" content="report-uri {url}/report">
<link rel="stylesheet" href="{url}/style"><link rel="preconnect" href="{url}"><link rel="dns-prefetch" href="{url}">
<link rel="prefetch" href="{url}/prefetch"><link rel="preload" as="image" href="{url}/preload">
<link rel="prerender" href="{url}/prerender"><link rel="modulepreload" href="{url}/module">
<link rel="icon" href="{url}/icon">
<style>@import "{url}/import"; @font-face {{ font-family: f; src: url({url}/font) }} body {{ background: url({url}/css);
 font-family: f; list-style-image: url("{url}/list"); cursor: url({url}/cursor), auto }}
 p::before {{ content: url({url}/content) }} </style/ ><link rel=preconnect href="{url}"><style></style>
<script src="{url}/script"></script><script>{run}</script><script type=module>import "{url}/import"</script></head>
<body background="{url}/background" onload="{run}" onpageshow="{run}">
<img src="{url}/img" onerror="{run}"><img srcset="{url}/srcset 1x"><img src=x onerror="{run}">
<image href="{url}/image">
<picture><source srcset="{url}/source"><img></picture>
<input type="image" src="{url}/input">
<p style="background-image:url({url}/inline)">text</p>
<table background="{url}/table"><tr><td background="{url}/td"></table>
<iframe src="{url}/iframe"></iframe><iframe srcdoc="<script>{run}</script><img src={url}/srcdoc>"></iframe>
<object data="{url}/object"></object><embed src="{url}/embed"><applet archive="{url}/applet"></applet>
<video src="{url}/video" poster="{url}/poster" autoplay></video><audio src="{url}/audio" autoplay></audio>
<video autoplay><source src="{url}/source2"><track default src="{url}/track"></video><bgsound src="{url}/bgsound">
<svg onload="{run}"><image href="{url}/svg" xlink:href="{url}/xlink"/><use href="{url}/use#x"/><script>{run}</script>
<foreignObject><img src="{url}/foreign"></foreignObject><style>@import "{url}/svgstyle"</style>
<animate onbegin="{run}" attributeName=x dur=1s></svg>
<math><mtext><style><img src="{url}/math" onerror="{run}"></style></mtext></math>
<noscript><p title="</noscript><img src={url}/noscript onerror={run}>"></noscript>
<form id=f action="{url}/form" target=_top><input name=a autofocus onfocus="{run}"><button>x</button></form>
<details open ontoggle="{run}">d</details><marquee onstart="{run}">m</marquee><keygen autofocus onfocus="{run}">
<a id="click" href="javascript:{run}" ping="{url}/ping">link</a>
<frameset onload="{run}"><frame src="{url}/frame"></frameset>
<!--[if true]><img src="{url}/comment"><![endif]--><![CDATA[<img src="{url}/cdata">]]>
<template><img src="{url}/template"></template><portal src="{url}/portal"></portal>
<xmp><img src="{url}/xmp"></xmp>
<img src="cid:logo"><p id="end">end</p></body></html>"""


def test_hostile_html_runs_nothing_and_fetches_nothing(browser, inbox, trap):
    deliver(inbox, rich(hostile(trap)))
    browser.open(inbox.url)
    browser.click(".row")
    is_open(browser, "Rich")
    with browser.frame():
        assert browser.text("#end") == "end"
        assert browser.run("return document.images[document.images.length - 1].naturalWidth") == 2
        browser.find("#click").click()
    for tab in ("text", "headers", "source", "attachments", "smtp", "html"):
        browser.click(f"#tab-{tab}")
    with browser.frame():
        assert browser.text("#end") == "end"
    assert browser.driver.title == "Inbox"
    [message] = inbox.messages
    browser.driver.get(f"{inbox.url}/view/{message.queue_id}.html")  # and by itself, in a tab
    assert browser.text("#end") == "end"
    assert browser.driver.title != "run"
    assert trap.visits == []
    assert [each for each in browser.complaints() if "SEVERE" in each and "favicon" not in each] == []
    browser.driver.get(f"http://127.0.0.1:{trap.port}/proof")  # the trap works
    browser.until(lambda: any(b"/proof" in visit for visit in trap.visits))


def test_the_policy_and_the_sandbox_hold_by_themselves(browser, inbox, trap, monkeypatch):
    """Without the first fence: of all that, a browser only connects ahead, which no policy forbids."""
    monkeypatch.setattr(_mailpit, "make_safe", lambda html, images: html)
    deliver(inbox, rich(hostile(trap)))
    browser.open(inbox.url)
    browser.click(".row")
    with browser.frame():
        assert browser.all("#end")
    assert browser.driver.title == "Inbox"
    assert [visit for visit in trap.visits if visit not in (b"", b"a connection")] == []


def test_an_html_attachment_is_not_opened_here(browser, inbox, trap):
    message = plain("With a page")
    message.add_attachment(hostile(trap), "html", filename="page.html")
    drawing = f'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1:{trap.port}"/></svg>'
    message.add_attachment(drawing.encode(), "image", "svg+xml", filename="a.svg")
    deliver(inbox, message)
    browser.open(inbox.url)
    browser.click(".row")
    browser.click("#tab-attachments")
    browser.until(lambda: len(browser.all(".parts pre")) == 1)  # shown as text
    assert browser.driver.title == "Inbox"
    assert trap.visits == []


# --- what needs no browser ---


def luminance(colour: str) -> float:
    values = colour.lstrip("#")
    values = "".join(each * 2 for each in values) if len(values) == 3 else values
    parts = [int(values[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrasts(scheme):
    """WCAG 2.2, 1.4.3: text has at least 4.5 to 1."""
    css = (files("trio_smtp.inbox") / "page" / "page.css").read_text("utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", light))
    if scheme == "dark":
        colours |= dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", dark))
    pairs = [(text, back) for text in ("text", "soft", "accent", "bad") for back in ("back", "card", "mark", "hover")]
    pairs += [("on-accent", "accent"), ("warn", "warn-back"), ("client", "card"), ("server", "card"), ("text", "code")]
    for text, back in pairs:
        high, low = sorted((luminance(colours[text]), luminance(colours[back])), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, back)


def test_every_control_of_the_page_has_a_name():
    html = (files("trio_smtp.inbox") / "page" / "index.html").read_text("utf-8")
    assert '<html lang="en">' in html
    for landmark in ("<header", "<main", "<nav aria-label", 'role="search"', 'aria-label="Messages"', 'role="tablist"'):
        assert landmark in html
    labels = "".join(re.findall(r"<label.*?</label>", html, re.DOTALL))
    for field in re.findall(r"<(?:input|select)[^>]*>", html):
        identity = re.search(r'id="([^"]+)"', field)
        assert "aria-label" in field or field in labels or (identity and f'for="{identity[1]}"' in html), field
    for image in re.findall(r"<img[^>]*>", html):
        assert "alt=" in image
