"""What the runtime gives to a source, beside its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import gettempdir
from uuid import UUID

from connectors.adapter import Adapters
from connectors.network import Guard
from connectors.ports import Clock
from connectors.secret import GivenSecrets, Secrets
from schemas.metric import Meter, NullMeter


@dataclass(frozen=True, slots=True)
class SourceContext:
    """
    The world, as a source needs it. `connector` is its name, a metric label; `connector_id` never changes.

    `staging` is a folder of the connector's own, made when it is needed: what is in it may be gone after a restart,
    and another worker does not see it.
    """

    connector_id: UUID
    connector: str
    clock: Clock
    secrets: Secrets = field(default_factory=GivenSecrets)
    meter: Meter = field(default_factory=NullMeter)
    staging: Path = field(default_factory=lambda: Path(gettempdir()) / "tillstream-staging")
    production: bool = False
    adapters: Adapters = field(default_factory=Adapters)

    def guard(self, allow: Sequence[str]) -> Guard:
        """The way out of a connector that names these ranges as allowed."""
        return Guard(allow)
