"""Whether a connector tries again what failed, and when: its own policy over what an error's class says."""

from __future__ import annotations

import random
from dataclasses import dataclass

from connectors.spec import ConnectorConfig, Retried
from connectors.wait import Backoff
from schemas.errors import Disposition, TillError

_CHOSEN = frozenset(each.value for each in Retried)
_USUALLY = frozenset({Disposition.RETRY, Disposition.REJECT})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """
    Of one connector. `on` are codes of errors of its source; what fails on our side is told by its disposition alone.
    """

    most: int
    on: frozenset[str]
    backoff: Backoff

    @classmethod
    def of(cls, config: ConnectorConfig, rng: random.Random) -> RetryPolicy:
        """As a connector is configured."""
        backoff = Backoff(config.error_backoff_s, config.error_backoff_max_s, rng, jitter=config.error_backoff_jitter)
        return cls(config.max_retries, frozenset(config.retry_on), backoff)

    def heals(self, error: TillError) -> bool:
        """Whether trying again may heal it."""
        return error.code in self.on if error.code in _CHOSEN else error.disposition in _USUALLY

    def tries_again(self, error: TillError, failures: int) -> bool:
        """Whether another attempt comes after the `failures`-th failure in a row."""
        return failures <= self.most and self.heals(error)

    def pause_s(self, error: TillError, failures: int) -> float:
        """How long to wait before it."""
        return self.backoff.pause_s(failures, error)
