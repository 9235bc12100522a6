from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import connectors
from connectors import directory, registry
from connectors.health import State
from connectors.spec import SourceSpec
from schemas import metric
from schemas.errors import ConfigError

ROOT = Path(connectors.__file__).parent


def with_plugins(monkeypatch: pytest.MonkeyPatch, **plugins: str) -> None:
    points = [EntryPoint(name, value, registry.ENTRY_POINTS) for name, value in plugins.items()]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == registry.ENTRY_POINTS else [])


def test_every_built_in_kind_is_its_modules_name_and_in_the_import_contract() -> None:
    contract = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    independent = next(item["modules"] for item in contract if item["type"] == "independence")

    assert sorted(independent) == sorted(f"connectors.{kind}" for kind in registry.BUILTIN)
    assert all((ROOT / f"{kind}.py").exists() for kind in registry.BUILTIN)


def test_a_plugin_is_found_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        directory, "PLUGIN", SourceSpec("swift_mt", "x", directory.DirectoryConfig, None, "x"), raising=False
    )  # type: ignore[arg-type]
    with_plugins(monkeypatch, swift_mt="connectors.directory:PLUGIN")

    specs = registry.specs()

    assert list(specs) == [*registry.BUILTIN, "swift_mt"]
    assert specs["swift_mt"].kind == "swift_mt"
    assert len(specs) == len(registry.BUILTIN) + 1
    assert specs.get("nothing") is None


def test_a_built_in_kind_cannot_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with_plugins(monkeypatch, directory="evil:SPEC")

    assert registry.specs()["directory"] is directory.SPEC


@pytest.mark.parametrize(
    "value", ["no.such.module:SPEC", "connectors.directory:NOTHING", "connectors.directory:SPEC", "ast:AST"]
)
def test_a_plugin_that_cannot_be_used_says_why_and_spoils_no_other(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with_plugins(monkeypatch, broken=value)
    specs = registry.specs()

    with pytest.raises(ConfigError, match="broken"):
        _ = specs["broken"]
    assert specs["directory"] is directory.SPEC


def test_importing_registers_and_opens_nothing() -> None:
    """
    A plugin is imported when its kind is asked for, not before; nothing else of a worker comes along.
    """
    heavy = "{'faust', 'aiokafka', 'asyncpg', 'asyncssh'}"
    code = f"import connectors.registry, sys; print({heavy} & {{name.split('.')[0] for name in sys.modules}})"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "set()"


def test_every_setting_has_a_description_and_every_number_bounds() -> None:
    for spec in registry.BUILTIN.values():
        for name, field in spec.config.model_fields.items():
            assert field.description, name
            if field.annotation in (int, float):
                assert len(field.metadata) >= 2, name


def test_no_log_call_formats_its_own_text() -> None:
    """
    Facts are keys; only the tutorial's lines carry a name in their text.
    """
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and ast.unparse(node.func.value) == "logger"
            ):
                assert not isinstance(node.args[0], ast.JoinedStr), f"{path}:{node.lineno}"
                assert any(keyword.arg == "extra" for keyword in node.keywords), f"{path}:{node.lineno}"


def test_states_are_those_the_metric_shows() -> None:
    assert metric.CONNECTOR_STATE.labels == ("connector", "state")
    assert {state.value for state in State} == {"starting", "running", "degraded", "paused", "stopped"}
