"""A real browser for tests of the inbox's page: Chromium without a window, by selenium."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cli_process import tool
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 30  # seconds; what is waited for comes within one


class Browser:
    """A browser that shows the page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, url: str, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get("about:blank")  # else a new hash alone would load nothing
        self.complaints()  # those of the page before
        self.driver.get(url)
        self.until(lambda: self.text("#live") == "live")

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until something is so; what is looked at may be replaced meanwhile."""

        def look(_: object) -> Any:
            try:
                return condition()
            except Exception as exc:
                if type(exc).__name__ in {"StaleElementReferenceException", "NoSuchElementException"}:
                    return False
                raise

        return WebDriverWait(self.driver, PATIENCE, poll_frequency=0.05).until(look)

    def find(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return str(self.find(selector).text)

    def texts(self, selector: str) -> list[str]:
        """Of all such elements, as they are at one moment."""
        script = "return [...document.querySelectorAll(arguments[0])].map((each) => each.textContent)"
        return list(self.driver.execute_script(script, selector))

    def click(self, selector: str) -> None:
        self.until(lambda: self.find(selector).is_displayed())
        self.find(selector).click()

    def keys(self, *keys: str) -> None:
        """Type, into what has the focus."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    @contextmanager
    def frame(self) -> Iterator[None]:
        """Look into the frame with the HTML of a message, once it is loaded."""
        self.until(lambda: self.find(".view iframe"))
        self.driver.switch_to.frame(self.find(".view iframe"))
        try:
            self.until(lambda: self.all("body") and self.run("return document.readyState") == "complete")
            yield
        finally:
            self.driver.switch_to.default_content()

    def complaints(self) -> list[str]:
        """What the browser has written to its console since the last look: errors, and what a policy has forbidden."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]


@contextmanager
def open_browser(directory: str) -> Iterator[Browser]:
    """Start a browser with a profile of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("google-chrome") or tool("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",  # it may run as root
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--no-first-run",
        "--no-proxy-server",
        "--lang=en-GB",
        f"--user-data-dir={directory}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(tool("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Trap:
    """A server that only counts who comes."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.visits: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.visits.append(b"a connection")  # already one too many, whether or not a request follows
            with connection:
                connection.settimeout(5)
                try:
                    self.visits[-1] = connection.recv(4096)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                except OSError:
                    pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


__all__ = ["PATIENCE", "Browser", "Keys", "Trap", "open_browser"]
