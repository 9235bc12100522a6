"""
Break the delivery path one line at a time, and see that the tests notice.

    python -m tests.mutants [part of a mutant's name …]

Works on a copy of the tree, on one broker and one database for all mutants. First every test must pass on the truth.
A mutant is caught if each test it names fails (where it names a file: some test of it). The exit status is 1 if one
survives, or does not apply any more.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

from tests import services
from tests.mutants.table import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
COPIED = ("schemas", "connectors", "streams", "sinks", "tillstream", "tests", "pyproject.toml")
MOST_S = 300


def main(wanted: Sequence[str]) -> int:
    """Try the mutants whose names hold one of the words, or all; the exit status."""
    chosen = [mutant for mutant in MUTANTS if not wanted or any(word in mutant.name for word in wanted)]
    survived = 0
    with services.running_kafka() as kafka, services.running_postgres() as postgres, _copy() as tree:
        environment = {
            **os.environ,
            "TILL_TEST_KAFKA": kafka.bootstrap,
            "TILL_TEST_POSTGRES": postgres.dsn,
            # A mutant may be as long as the truth, and as old as a second: compiled files would not notice.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if problem := _truth(chosen, tree, environment):
            print(f"without any mutant: {problem}")
            return 1
        for mutant in chosen:
            began = time.monotonic()
            problem = _try(mutant, tree, environment)
            survived += bool(problem)
            verdict = f"SURVIVED: {problem}" if problem else "caught"
            print(f"{mutant.name:60} {time.monotonic() - began:5.0f} s  {verdict}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} mutants caught")
    return 1 if survived else 0


def problem_of(mutant: Mutant, tree: Path) -> str:
    """Why the mutant cannot be tried on the tree; empty if it can."""
    file = tree / mutant.file
    count = file.read_text("utf-8").count(mutant.old) if file.exists() else 0
    if count != 1:
        return f"the text to replace stands {count} times in {mutant.file}"
    missing = [test for test in mutant.tests if not _exists(test, tree)]
    if missing or not mutant.tests:
        return f"there is no such test: {', '.join(missing) or 'it names none'}"
    return ""


def _exists(test: str, tree: Path) -> bool:
    path, *names = test.split("::")
    file = tree / path
    if not file.exists():
        return False
    return len(names) != 1 or f"def {names[0]}(" in file.read_text("utf-8")


def _truth(mutants: Sequence[Mutant], tree: Path, environment: dict[str, str]) -> str:
    """Which test of these mutants fails although nothing is broken."""
    tests = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests if _exists(test, tree)))
    if not tests:
        return ""
    outcomes, said = _run(tests, tree, environment, most_s=MOST_S * 4)
    wrong = [name for name, kind in outcomes if kind]
    return f"{', '.join(wrong) or 'no test ran'}:\n{said}" if wrong or not outcomes else ""


def _try(mutant: Mutant, tree: Path, environment: dict[str, str]) -> str:
    if problem := problem_of(mutant, tree):
        return problem
    file = tree / mutant.file
    truth = file.read_text("utf-8")
    file.write_text(truth.replace(mutant.old, mutant.new), "utf-8")
    try:
        return _survivors(mutant, tree, environment)
    finally:
        file.write_text(truth, "utf-8")


def _survivors(mutant: Mutant, tree: Path, environment: dict[str, str]) -> str:
    outcomes, said = _run(mutant.tests, tree, environment, most_s=MOST_S)
    if not outcomes or any(kind == "error" for _, kind in outcomes):
        return f"its tests cannot run:\n{said}"
    failed = [name for name, kind in outcomes if kind == "failure"]
    passed = [test for test in mutant.tests if not any(_is_of(test, name) for name in failed)]
    return f"passed all the same: {', '.join(passed)}" if passed else ""


def _run(
    tests: Sequence[str], tree: Path, environment: dict[str, str], *, most_s: float
) -> tuple[list[tuple[str, str]], str]:
    """Each test case that ran and what became of it, and the end of what pytest said."""
    report = tree / "report.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *tests]
    try:
        ended = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=most_s, check=False
        )
    except subprocess.TimeoutExpired:
        return [], f"longer than {most_s} s"
    return list(_outcomes(report)) if report.exists() else [], ended.stdout[-3_000:] + ended.stderr[-1_000:]


def _outcomes(report: Path) -> Iterator[tuple[str, str]]:
    """Each test case that ran, and `failure`, `error` or nothing."""
    for case in ET.parse(report).getroot().iter("testcase"):
        kinds = [child.tag for child in case if child.tag in {"failure", "error"}]
        yield f"{case.get('classname')}.{case.get('name')}", kinds[0] if kinds else ""
    report.unlink()


def _is_of(test: str, case: str) -> bool:
    path, *names = test.split("::")
    start = ".".join([path.removesuffix(".py").replace("/", "."), *names])
    return case == start or case.startswith((f"{start}[", f"{start}."))


@contextmanager
def _copy() -> Iterator[Path]:
    """The tree as it is now, without what it made."""
    with tempfile.TemporaryDirectory(prefix="till-mutants-") as folder:
        tree = Path(folder)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, tree / name)
        yield tree


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
