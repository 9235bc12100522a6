"""
The pages that code writes (`make docs`): commands, settings, sources, metrics, errors, topics, the AsyncAPI
document and JSON Schemas.

A test renders them again and compares, so none goes stale. `python -m tillstream.docs --check` tells which are.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from connectors.record import STATUSES
from connectors.registry import BUILTIN
from schemas import errors
from schemas.checkpoint import Checkpoint
from schemas.errors import TillError
from schemas.event import ConnectorEvent
from schemas.letter import DeadLetter
from schemas.metric import METRICS
from schemas.topic import topics
from tillstream import asyncapi, docs_source
from tillstream.api.app import document
from tillstream.cli.app import tree
from tillstream.cli.exit import MEANINGS
from tillstream.cli.output import MEANINGS as OUTPUTS
from tillstream.cli.tree import commands
from tillstream.config import OTHER_VARIABLES, all_settings, show
from tillstream.docs_source import table
from tillstream.reason import reasons

ROOT = Path(__file__).parents[1]
RULES = Path("compose/prometheus/rules.yml")
_NOTE = "<!-- Written by `make docs` from the code: change it there. -->\n"

# A metric has an alert, or a reason not to.
WITHOUT_ALERT: Mapping[str, str] = {
    "tillstream_events_total": "a rate to look at; what goes wrong shows as lag or dead letters",
    "tillstream_slice_events": "tuning: how full transactions are",
    "tillstream_apply_seconds": "slow transactions show as lag",
    "tillstream_end_to_end_seconds": "its cause is lag, which alerts",
    "tillstream_committed_offset": "its distance to the end is the lag",
    "tillstream_records_total": "volume differs by source; rejected ones alert as dead letters",
    "tillstream_publish_seconds": "a slow broker shows in scan age and retries",
    "tillstream_checkpoints_total": "a rate to look at",
    "tillstream_checkpoints_refused_total": "a frozen worker has woken: what it says is refused, as it should be",
    "tillstream_runs_awaiting_sink": "normal while the sink works; past the deadline tillstream_run_overdue alerts",
    "tillstream_source_lag_seconds": "past its own lag_alert_s a connector is unwell, which alerts",
    "tillstream_connector_state": "tillstream_connector_healthy sums it up",
    "tillstream_files_skipped_total": "skipping known files is normal",
    "tillstream_downloaded_bytes_total": "a rate to look at; a download that fails shows as an unwell connector",
    "tillstream_http_requests_total": "a rate to look at; what stays wrong shows as an unwell connector",
}


_CLI_INTRO = """\
Data goes to standard output, everything else to standard error. Errors are a code, a message and a hint, never a
traceback (unless `-v`). Whoever reads no further ends a command in silence.
"""
_OUTPUT_INTRO = """\
Every command that prints data takes `-o`. What only prints takes `--columns a,b` (headings of the table, or fields of
the JSON) and `--no-headers` for `table` and `csv`; the columns of `csv` are the same whatever the rows hold.

In CSV, text that a spreadsheet would take for a formula (it begins with `=`, `+`, `-`, `@`, a TAB or a line's end) has
an apostrophe in front, as has text that begins with an apostrophe: one that is taken away gives the text again. Numbers
stay numbers, and nothing is an empty field.
"""
_VARIABLES_INTRO = """\
An option wins over a variable, that over the TOML file (`--config`, else `TILL_CONFIG`, else `./till.toml`), that over
what a stack that runs in the home tells of itself, that over the default: `till config show --origin`. Every setting
has a variable, `sink.slice_events` for one `TILL_SINK_SLICE_EVENTS`: [config.md](config.md).

Which API is asked, the nearest word says: `--api`, `--context` or `--home`; then `TILL_API_URL`, `TILL_CONTEXT` or
`TILL_HOME`; then the current context, the stack of the home, `http.api_host` and `http.api_port`: `till context show`.
Other variables:
"""
_VARIABLES: Mapping[str, str] = {
    "TILL_HOME": "The home: where a stack keeps its data, and tells where it serves; else one below the user's own.",
    **OTHER_VARIABLES,
    "NO_COLOR": "If it is not empty, nothing is coloured.",
}
_CONFIG_INTRO = """\
A flag (`till --set sink.slice_events=500 …`) wins over a variable, that over the TOML file, that over what a
running stack of the home tells of itself, that over the default. `till config show --origin` tells which did.
Durations are `250ms`, `30s`, `5m`, `2h`, `7d`, or a number of seconds. Secrets are refused as flags, and masked
wherever settings are shown or logged.

```toml
# till.toml
[kafka]
bootstrap = "broker-1:9092,broker-2:9092"

[monitor]
lag_alert_s = "1m"
```
"""
_METRICS_INTRO = """\
Every worker serves all of them at `/metrics` (`http.host`, `http.<role>_port`; a free port stands in
`run/<role>.json` of the home). Labels are bounded: never an id, a path or a reference.
Alerts are in [`compose/prometheus/rules.yml`](../compose/prometheus/rules.yml), dashboards in
[`compose/grafana/dashboards/`](../compose/grafana/dashboards/).
"""
_ERRORS_INTRO = """\
Each error has a stable code and one disposition, which alone decides what happens next: *retry* waits and tries
the same again, *reject* dead-letters the record, *pause* stops the connector or the partition with an alert,
*crash* is a bug and ends the process.
"""
_TOPICS_INTRO = """\
Created by `till up` and `till migrate`; the prefix is `topic.prefix`, the partitions those of the settings.
What flows, by whom, under which keys: [`asyncapi.json`](asyncapi.json), an AsyncAPI 3 document, which
`till topic asyncapi` prints for the names and partitions of an installation. JSON Schemas of it are in `schemas/json/`.
"""


@cache
def pages() -> dict[str, str]:
    """Every generated file by its path in the project."""
    models: Mapping[str, type[BaseModel]] = {
        "connector-event": ConnectorEvent,
        "dead-letter": DeadLetter,
        "checkpoint": Checkpoint,
    }
    schemas = {f"schemas/json/{name}.json": _schema(model) for name, model in models.items()}
    return {
        "docs/cli.md": _cli(),
        "docs/config.md": _config(),
        "docs/sources.md": docs_source.index(BUILTIN, note=_NOTE),
        **{f"docs/sources/{kind}.md": docs_source.page(spec, note=_NOTE) for kind, spec in BUILTIN.items()},
        "docs/metrics.md": _metrics(),
        "docs/errors.md": _errors(),
        "docs/topics.md": _topics(),
        "docs/files.md": _files(),
        "docs/openapi.json": _json(document()),
        "docs/asyncapi.json": _json(asyncapi.document(topics())),
        **schemas,
    }


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with `--check` name those that are stale; the exit status."""
    stale = [path for path, text in pages().items() if not _is(ROOT / path, text)]
    if "--check" not in arguments:
        for path in stale:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_text(pages()[path], encoding="utf-8")
    for path in stale:
        sys.stderr.write(f"{'stale' if '--check' in arguments else 'written'}: {path}\n")
    return 1 if stale and "--check" in arguments else 0


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


def _schema(model: type[BaseModel]) -> str:
    return _json({"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()})


def _json(body: Mapping[str, object]) -> str:
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


# commands


def _cli() -> str:
    root = tree()
    parts = [
        "# The command line\n",
        _NOTE,
        _CLI_INTRO,
        "## Output\n",
        _OUTPUT_INTRO,
        table(("`-o`", "what it prints"), [(f"`{each.value}`", meaning) for each, meaning in OUTPUTS.items()]),
        "## Exit statuses\n",
        table(("status", "meaning"), [(str(status.value), meaning) for status, meaning in MEANINGS.items()]),
        "## Variables\n",
        _VARIABLES_INTRO,
        table(("variable", "what it is"), [(f"`{name}`", text) for name, text in _VARIABLES.items()]),
        "## `till`\n",
        _parameters(root),
    ]
    parts += [part for name, command in commands(root) for part in _command(name, command)]
    return "\n".join(parts)


# Typer's commands are Click's, which it hides
def _command(name: str, command: Any) -> list[str]:
    arguments = " ".join(
        parameter.name.upper() if parameter.required else f"[{parameter.name.upper()}]"
        for parameter in command.params
        if type(parameter).__name__ == "TyperArgument"
    )
    return [f"## `{name}{f' {arguments}' if arguments else ''}`\n", f"{command.help}\n", _parameters(command)]


def _parameters(command: Any) -> str:
    rows = []
    for parameter in command.params:
        if parameter.name in ("help", "install_completion", "show_completion"):
            continue
        is_argument = type(parameter).__name__ == "TyperArgument"
        name = parameter.name.upper() if is_argument else ", ".join(parameter.opts)
        default = (
            ""
            if parameter.default in (None, False, "")
            else str(getattr(parameter.default, "value", parameter.default))
        )
        rows.append((f"`{name}`", parameter.help or "", f"`{default}`" if default else ""))
    return table(("option", "what it does", "default"), rows) if rows else ""


# settings


def _config() -> str:
    rows = [
        (
            f"`{each.key}`",
            f"`{each.variable}`",
            each.allowed,
            _default(each.key, each.field),
            each.field.description or "",
        )
        for each in all_settings()
    ]
    others = [(f"`{name}`", text) for name, text in OTHER_VARIABLES.items()]
    return "\n".join(
        [
            "# Settings\n",
            _NOTE,
            _CONFIG_INTRO,
            table(("key", "variable", "value", "default", "what it is"), rows),
            "## Other variables\n",
            "They are read before there are settings.\n",
            table(("variable", "what it is"), others),
        ]
    )


# a pydantic field
def _default(key: str, field: Any) -> str:
    if key == "home":
        return ""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined or value in (None, "", ()):
        return ""
    return f"`{show(value)}`" if isinstance(value, SecretStr) else f"`{getattr(value, 'value', value)}`"


# spellings, within a page that people write


def _files() -> str:
    page = (ROOT / "docs/files.md").read_text(encoding="utf-8")
    spelled: dict[str, list[str]] = {}
    for word, status in STATUSES.items():
        spelled.setdefault(status.value, []).append(word)
    rows = [
        (f"`{status}`", ", ".join(f"`{word}`" for word in words if word != status.replace("_", "")))
        for status, words in spelled.items()
    ]
    begin, end = "<!-- Written by `make docs`: spellings. -->\n", "\n<!-- The end of what is written. -->\n"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n{table(('status', 'also spelled'), rows)}{end}{rest.partition(end)[2]}"


# metrics


def _metrics() -> str:
    text = (ROOT / RULES).read_text(encoding="utf-8")
    alerts: dict[str, list[str]] = {}
    for block in text.split("- alert: ")[1:]:
        name = block.split("\n", 1)[0].strip()
        expression = block.split("expr: ", 1)[1].split("\n", 1)[0]
        for metric in METRICS:
            if re.search(rf"\b{metric.name}\b", expression):
                alerts.setdefault(metric.name, []).append(name)
    rows = [
        (
            f"`{each.name}`",
            each.kind.value,
            ", ".join(each.labels),
            each.help,
            ", ".join(alerts.get(each.name, [])) or f"none: {WITHOUT_ALERT.get(each.name, '')}",
        )
        for each in METRICS
    ]
    return "\n".join(
        [
            "# Metrics\n",
            _NOTE,
            _METRICS_INTRO,
            table(("metric", "kind", "labels", "meaning", "alert"), rows),
        ]
    )


# errors


def _errors() -> str:
    classes = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, TillError)]
    rows = [
        (_code(each), each.__name__, each.disposition.value, _first_line(each), each.hint)
        for each in classes
        if each.hint
    ]
    rejections = [(f"`{code}`", ", ".join(places)) for code, places in reasons().items()]
    return "\n".join(
        [
            "# Errors\n",
            _NOTE,
            _ERRORS_INTRO,
            table(("code", "class", "disposition", "meaning", "hint"), rows),
            "## Why a record is rejected\n",
            "The `reason` of a dead letter: a metric label and a column of `till deadletter list`.\n",
            table(("reason", "decided in"), rejections),
        ]
    )


def _code(error: type[TillError]) -> str:
    return "the reason" if error is errors.RecordRejected else f"`{error.code}`"


def _first_line(error: type[TillError]) -> str:
    return (inspect.getdoc(error) or "").partition("\n")[0].partition(" Disposition:")[0]


def _topics() -> str:
    rows = [
        (
            f"`{each.name}`",
            each.key,
            str(each.partitions),
            str(each.max_message_bytes),
            ", ".join(f"{key}={value}" for key, value in each.config.items()),
        )
        for each in topics().all()
    ]
    return "\n".join(
        [
            "# Topics\n",
            _NOTE,
            _TOPICS_INTRO,
            table(("topic", "key", "partitions", "largest message, bytes", "configuration"), rows),
        ]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
