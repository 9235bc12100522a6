from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from connectors.postgres_changes import PostgresChangesConfig

GIVEN = {"host": "db", "database": "d", "user": "u", "tables": ["public.t"], "type": "payin"}
OF_MODE: dict[str, dict[str, Any]] = {
    "logical": {
        "slot": "s",
        "publication": "p",
        "create": True,
        "on_delete": "cancel",
        "peek_rows": 10,
        "let_go_s": 1,
        "held_alert_mib": 1,
    },
    "watermark": {"watermark": "xid", "held_alert_s": 1},
    "closed_window": {"delay_s": 1, "held_alert_s": 1},
}


def config(mode: str, **options: object) -> PostgresChangesConfig:
    dated = {"updated_at": "changed_at"} if mode == "closed_window" else {}
    return PostgresChangesConfig.model_validate({**GIVEN, **dated, "mode": mode, **options})


@pytest.mark.parametrize("mode", OF_MODE)
def test_each_mode_takes_its_own_options(mode: str) -> None:
    config(mode, **OF_MODE[mode])


@pytest.mark.parametrize("mode", OF_MODE)
def test_an_option_without_effect_in_the_mode_is_refused_with_the_mode_that_has_it(mode: str) -> None:
    for other, options in OF_MODE.items():
        for name, value in options.items():
            if name in OF_MODE[mode]:
                continue
            with pytest.raises(ValidationError, match=f"{name}: no effect in mode {mode}; .* mode .*{other}"):
                config(mode, **{name: value})


@pytest.mark.parametrize("mode", OF_MODE)
def test_a_default_that_is_spelled_out_is_no_mistake(mode: str) -> None:
    config(mode, **{name: getattr(config(mode), name) for options in OF_MODE.values() for name in options})
