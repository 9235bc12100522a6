"""
Every kind of source: a table one can read, and plugins by entry point, loaded by name.

Importing a connector never registers it, and a plugin is imported only when its kind is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points

from connectors import directory, http_api, postgres_changes, sftp
from connectors.spec import SourceSpec
from schemas.errors import ConfigError

ENTRY_POINTS = "tillstream.connectors"

BUILTIN: Mapping[str, SourceSpec] = {
    spec.kind: spec for spec in (directory.SPEC, http_api.SPEC, postgres_changes.SPEC, sftp.SPEC)
}


def specs() -> Mapping[str, SourceSpec]:
    """All kinds by name. A built-in one cannot be replaced; a plugin's module is loaded when its spec is read."""
    return _Specs({point.name: point for point in entry_points(group=ENTRY_POINTS) if point.name not in BUILTIN})


class _Specs(Mapping[str, SourceSpec]):
    def __init__(self, plugins: Mapping[str, EntryPoint]) -> None:
        self._plugins = plugins

    def __getitem__(self, kind: str) -> SourceSpec:
        if kind in BUILTIN:
            return BUILTIN[kind]
        return _load(self._plugins[kind])

    def __iter__(self) -> Iterator[str]:
        yield from BUILTIN
        yield from self._plugins

    def __len__(self) -> int:
        return len(BUILTIN) + len(self._plugins)


def _load(point: EntryPoint) -> SourceSpec:
    try:
        spec = point.load()
    except Exception as exc:  # a stranger's module may fail in any way, and must not end a worker
        raise ConfigError(
            f"connector {point.name!r}: {point.value} cannot be imported: {type(exc).__name__}: {exc}",
            hint="mend or remove the package that offers it",
        ) from exc
    if not isinstance(spec, SourceSpec) or spec.kind != point.name:
        raise ConfigError(
            f"connector {point.name!r}: {point.value} is no SourceSpec of that kind",
            hint="the entry point's name and the spec's kind must be equal",
        )
    return spec
