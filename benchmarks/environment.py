# The dependencies of the contenders: a virtual environment and Node packages, in a cache directory.
#
# Nothing is installed elsewhere. A contender whose dependencies cannot be installed is left out, and reported.
from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

from trio_smtp._version import __version__

ROOT = Path(__file__).resolve().parent.parent
PYTHON_PACKAGES = ("trio", "aiosmtpd", "aiosmtplib", "smtpproto", "uvloop", "matplotlib", "cryptography")
NODE_PACKAGES = ("smtp-server", "simplesmtp", "nodemailer")
INSTALL_LIMIT = 300  # seconds
_VERSIONS = """
import importlib.metadata, sys
for name in sys.argv[1:]:
    try:
        print(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        pass
"""


def cache() -> Path:
    """The cache directory; TRIO_SMTP_BENCHMARKS overrides it."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trio-smtp-benchmarks"
    path = Path(os.environ.get("TRIO_SMTP_BENCHMARKS") or default)
    path.mkdir(parents=True, exist_ok=True)
    return path


def tool(name: str) -> str | None:
    """The path of a program, also in /usr/sbin, where Debian has Postfix's."""
    return shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + "/usr/sbin")


class Environment:
    """The installed dependencies of the contenders.

    Attributes:
        python: the interpreter with the Python packages.
        missing: missing package or program to the reason.
        processors: the processors that this process may use.
    """

    def __init__(self) -> None:
        self.missing: dict[str, str] = {}
        self.processors = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
        self.python = sys.executable
        if not all(importlib.util.find_spec(name) for name in PYTHON_PACKAGES):
            self.python = self._virtual_environment()
        self._node = self._node_modules()
        self.certificate = cache() / "certificate.pem"
        self._make_certificate()
        for name in ("smtp-source", "smtp-sink"):
            if tool(name) is None:
                self.missing[name] = "Postfix is not installed"

    def _virtual_environment(self) -> str:
        python = cache() / "venv" / "bin" / "python"
        self._run([sys.executable, "-m", "venv", str(cache() / "venv")] if not python.exists() else [])
        have = self._have(str(python))
        for name in PYTHON_PACKAGES:
            if name not in have and (failure := self._run([str(python), "-m", "pip", "install", "-q", name])):
                self.missing[name] = failure
        return str(python)

    def _have(self, python: str) -> set[str]:
        script = "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n)])"
        done = subprocess.run([python, "-c", script, *PYTHON_PACKAGES], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    def _node_modules(self) -> Path:
        home = cache() / "node"
        modules = home / "node_modules"
        if tool("node") is None or tool("npm") is None:
            self.missing |= dict.fromkeys(NODE_PACKAGES, "Node is not installed")
            return modules
        home.mkdir(exist_ok=True)
        wanted = [name for name in NODE_PACKAGES if not (modules / name).exists()]
        if wanted:
            flags = ["--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund"]
            failure = self._run(["npm", "install", "--prefix", str(home), *flags, *wanted])
            self.missing |= {name: failure for name in wanted if not (modules / name).exists()}
        return modules

    def _run(self, argv: list[str]) -> str:
        """Run an installer. Return the reason if it failed, else ``""``."""
        if not argv:
            return ""
        print("  setting up:", " ".join(argv[-4:]), flush=True)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=INSTALL_LIMIT, check=False)
        return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["failed"])[-1]

    def _make_certificate(self) -> None:
        if self.certificate.exists():
            return
        done = subprocess.run(
            [self.python, "-m", "benchmarks.programs.certificate", str(self.certificate)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            self.missing["TLS"] = (done.stderr.strip().splitlines() or ["no certificate"])[-1]

    # -- commands

    def python_program(self, name: str, *arguments: object) -> list[str]:
        """The command for one of the Python programs here."""
        return [self.python, "-m", f"benchmarks.programs.{name}", *map(str, arguments)]

    def node_program(self, name: str, *arguments: object) -> list[str]:
        """The command for one of the Node programs here."""
        return [tool("node") or "node", str(ROOT / "benchmarks" / "programs" / name), *map(str, arguments)]

    def node_client(self, name: str, port: int, options: dict[str, int]) -> list[str]:
        """The command for one of the Node clients here."""
        return self.node_program(name, port, json.dumps(options))

    def variables(self) -> dict[str, str]:
        """The environment variables for all of them."""
        return {**os.environ, "NODE_PATH": str(self._node), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}

    # -- facts for the report

    def versions(self) -> dict[str, str]:
        """The versions of all programs and packages."""
        found = {"Python": platform.python_version(), "OpenSSL": ssl.OPENSSL_VERSION.split(" ")[1]}
        packages = [name for name in PYTHON_PACKAGES if name not in ("matplotlib", "cryptography")]
        done = subprocess.run([self.python, "-c", _VERSIONS, *packages], capture_output=True, text=True, check=True)
        found |= dict(line.split() for line in done.stdout.splitlines())
        found["trio_smtp"] = __version__
        if (node := tool("node")) is not None:
            found["Node"] = subprocess.run(
                [node, "--version"], capture_output=True, text=True, check=True
            ).stdout.strip()
        for name in NODE_PACKAGES:
            manifest = self._node / name / "package.json"
            if manifest.exists() and (match := re.search(r'"version":\s*"([^"]+)"', manifest.read_text("utf-8"))):
                found[name] = match[1]
        if (postconf := tool("postconf")) is not None:
            done = subprocess.run([postconf, "-dh", "mail_version"], capture_output=True, text=True, check=False)
            found["Postfix"] = done.stdout.strip()
        return found


def machine() -> str:
    """The machine in one line."""
    cpu = "unknown CPU"
    try:
        match = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
        cpu = match[1] if match else cpu
    except OSError:
        pass
    return f"{cpu}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}"
