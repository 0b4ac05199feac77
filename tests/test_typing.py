"""The public face in types: a user's program passes mypy and pyright at their strictest, and runs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typed import user_program

ROOT = Path(__file__).parent.parent
PROGRAM = ROOT / "tests" / "typed" / "user_program.py"


def check(module: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a type checker over our package. Without one the test is skipped, or fails where tools are required."""
    if importlib.util.find_spec(module) is None:
        if os.environ.get("TRIO_SMTP_REQUIRE_TOOLS"):
            pytest.fail(f"{module} is not installed, and TRIO_SMTP_REQUIRE_TOOLS is set")
        pytest.skip(f"{module} is not installed")
    # pyright --verifytypes takes the packages of the first "python", whatever --pythonpath says.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_mypy_strict(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.read_text(encoding="utf-8"), encoding="utf-8")
    done = check("mypy", "--strict", "--config-file=", "program.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pyright_strict(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict", "include": ["program.py"]}))
    done = check("pyright", "--pythonpath", sys.executable, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_verify_types(tmp_path: Path) -> None:
    """Every public name has a type that all checkers read the same way."""
    done = check("pyright", "--verifytypes", "trio_smtp", "--ignoreexternal", "--outputjson", cwd=tmp_path)
    report = json.loads(done.stdout)["typeCompleteness"]
    missing = [symbol["name"] for symbol in report["symbols"] if not symbol["isTypeKnown"] or symbol["isTypeAmbiguous"]]
    assert report["completenessScore"] == 1, missing
    assert not missing
    assert report["symbols"]


async def test_the_program_runs(capsys: pytest.CaptureFixture[str]) -> None:
    await user_program.main()
    await user_program.in_memory()
    await user_program.kit()
    await user_program.catch()
    assert "taken 1" in capsys.readouterr().out
