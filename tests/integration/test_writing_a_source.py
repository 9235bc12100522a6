"""The page that teaches how a source is written: its two files run as they stand there."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import connectors

ROOT = Path(connectors.__file__).parents[1]
PAGE = (ROOT / "docs" / "writing-a-source.md").read_text(encoding="utf-8")
MOST_LINES = 50
# The folder has a package `connectors` of its own beside ours, as if the page's file had been put into it.
SHIM = "from pkgutil import extend_path\n__path__ = [*extend_path(__path__, __name__), {ours!r}]\n"


def test_the_pages_source_passes_the_conformance_suite(tmp_path: Path) -> None:
    (tmp_path / "connectors").mkdir()
    (tmp_path / "connectors" / "__init__.py").write_text(SHIM.format(ours=str(ROOT / "connectors")))
    for file, code in _files().items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(code)
    (tmp_path / "pytest.ini").write_text(
        # as little as a package of its own has; the second line is there for pytest-asyncio not to warn
        "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"
    )

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/conformance/test_letterbox.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    assert re.search(r"\b2\d passed", done.stdout)


def test_the_pages_code_is_in_the_house_style(tmp_path: Path) -> None:
    for file, code in _files().items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(code)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--no-cache", str(tmp_path)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_source_is_short() -> None:
    """
    Its class and configuration and spec: what is neither blank, nor a docstring, nor an import.
    """
    code = _files()["connectors/letterbox.py"]
    tree = ast.parse(code)
    skipped = {line for node in ast.walk(tree) for line in _told_lines(node)}
    lines = [number for number, line in enumerate(code.splitlines(), 1) if line.strip() and number not in skipped]

    assert len(lines) <= MOST_LINES


def _files() -> dict[str, str]:
    return dict(re.findall(r"^`([a-z_/]+\.py)`\n\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))


def _told_lines(node: ast.AST) -> range:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    if is_text or isinstance(node, ast.Import | ast.ImportFrom):
        return range(node.lineno, (node.end_lineno or node.lineno) + 1)
    return range(0)
