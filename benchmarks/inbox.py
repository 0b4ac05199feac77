# The inbox for developers: messages per second kept and listed, memory, and the time until a list is there.
#
# `python -m benchmarks.inbox` starts `trio-smtp inbox`, has `trio-smtp load` send to it, and asks it by HTTP; with
# `--browser` also how long Chromium takes to show the first list. All run on this machine, side by side.
from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONNECTIONS = 5
LOAD_LIMIT = 900  # seconds
LOOKS = 20  # requests of each kind


@dataclass(frozen=True)
class Running:
    """An inbox.

    Attributes:
        pid: its process.
        port: of SMTP.
        url: of HTTP.
    """

    pid: int
    port: int
    url: str

    def ask(self, path: str) -> Any:
        """The JSON at a path."""
        with urllib.request.urlopen(f"{self.url}{path}", timeout=60) as answer:
            return json.loads(answer.read())

    def memory(self) -> float:
        """MiB that it has in memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024

    def processor_time(self) -> float:
        """Seconds of processor time that it has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def milliseconds(self, path: str) -> float:
        """The median time of an answer."""
        return statistics.median(_timed(lambda: self.ask(path)) for _ in range(LOOKS)) * 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inbox", description="Measure the inbox.")
    parser.add_argument("--messages", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=10 * 1024, help="octets of a message")
    parser.add_argument("--browser", action="store_true", help="also in Chromium; needs selenium")
    options = parser.parse_args()
    print(f"{options.messages} messages of {options.size} octets, {CONNECTIONS} connections")
    with tempfile.TemporaryDirectory() as directory:
        for name, store in (("in memory", []), ("in a file", ["--store", f"{directory}/inbox.db"])):
            with _inbox(options.messages, *store) as inbox:
                _measure(inbox, name, options)


def _measure(inbox: Running, name: str, options: argparse.Namespace) -> None:
    before, used = inbox.memory(), inbox.processor_time()
    rate = _load(inbox.port, options.messages, options.size)
    kept = inbox.ask("/api/v1/messages?limit=1")["total"]
    assert kept == options.messages, f"{kept} of {options.messages} were kept"
    after, used = inbox.memory(), inbox.processor_time() - used
    print(f"{name}:")
    print(f"  kept and listed: {rate:.0f} messages per second; {used / kept * 1e6:.0f} µs of the processor each")
    print(f"  memory: {before:.0f} MiB before, {after:.0f} MiB after; content is {kept * options.size / 2**20:.0f} MiB")
    for what, path in (
        ("the first 100 of the list", "/api/v1/messages?limit=100"),
        ("a search for a word that all have", "/api/v1/search?query=load&limit=100"),
        ("a search that finds nothing", "/api/v1/search?query=absent&limit=100"),
        ("a message", "/api/v1/message/latest"),
    ):
        print(f"  {what}: {inbox.milliseconds(path):.1f} ms")
    if options.browser:
        print(f"  the page's first list in Chromium: {_first_list(inbox.url):.0f} ms after navigation began")


@contextmanager
def _inbox(keep: int, *options: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "trio_smtp", "inbox", "--smtp-port", "0", "--http-port", "0"]
    command += ["--keep", str(keep), "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            told = json.loads(process.stdout.readline())
            yield Running(process.pid, told["smtp_port"], told["url"])
        finally:
            process.terminate()


def _load(port: int, messages: int, size: int) -> float:
    """Messages per second."""
    command = [sys.executable, "-m", "trio_smtp", "load", "--server", f"127.0.0.1:{port}", "--tls", "none", "--json"]
    command += ["--messages", str(messages), "--connections", str(CONNECTIONS), "--size", str(size)]
    begin = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, timeout=LOAD_LIMIT)
    return messages / (time.perf_counter() - begin)


def _first_list(url: str) -> float:
    """Milliseconds from the beginning of the navigation to the first row with text; the median of five."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"):
        options.add_argument(argument)
    options.binary_location = "/usr/bin/chromium"
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    # Called in each new page before its own scripts: notes when the first row has a subject.
    watch = """
        new MutationObserver((_, observer) => {
            if (document.querySelector(".row .subject")?.textContent) {
                window.firstList = performance.now();
                observer.disconnect();
            }
        }).observe(document, { childList: true, subtree: true, characterData: true });
    """
    try:
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": watch})
        times: list[float] = []
        while len(times) < 5:
            driver.get("about:blank")
            driver.get(url)
            while not (found := driver.execute_script("return window.firstList")):
                time.sleep(0.01)
            times.append(float(found))
        return statistics.median(times)
    finally:
        driver.quit()


def _timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
