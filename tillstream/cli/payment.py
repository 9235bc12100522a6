"""`till payment`: what the events came to, over the API."""
# ruff: noqa: PLC0415, PLR0917  imports wait until a command runs; Typer reads options from the signature

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import Conflict, NotFound
from tillstream.cli import complete, instant
from tillstream.cli.instant import instant_of, seconds
from tillstream.cli.layout import LAYOUT, positions
from tillstream.cli.option import AfterOption, LimitOption, OutputOption
from tillstream.cli.output import Output, cell, note, print_data, print_lines, print_table
from tillstream.cli.place import log_place, origin_of, short
from tillstream.cli.remote import ask
from tillstream.cli.rows import PAGE, Columns, Listing, list_rows, page_of, print_one, told

if TYPE_CHECKING:
    from tillstream.cli.client import Client

group = typer.Typer(help="What the events came to.", no_args_is_help=True)

_WIDTHS = {"first seen": 20, "provider": 14, "reference": 24, "type": 7, "status": 18, "amount": 14, "asset": 5}
_USUAL_WIDTH = 20
_EVERY_S = 1.0  # between two looks of `tail`
_MOST_PAGES = 50  # of one look: who watches reads no ten thousand a second

ProviderOption = Annotated[str | None, typer.Option(help="Only payments of this provider.")]
StatusOption = Annotated[
    str | None, typer.Option(help="Only payments in this status, such as settled; a wrong one tells them all.")
]
TypeOption = Annotated[str | None, typer.Option("--type", help="Only payments of this type, such as payin.")]
ConnectorOption = Annotated[
    str | None,
    typer.Option(help="Only payments of which this connector brought an event.", autocompletion=complete.connectors),
]
PaymentArgument = Annotated[str, typer.Argument(help="Its id, or its reference.")]


# an object of the API
def _amount(row: Mapping[str, Any], name: str = "amount") -> str | None:
    """As people read it."""
    from schemas.money import format_major

    return None if row[name] is None else format_major(row[name], row["asset"])


PAYMENTS = Columns(
    {
        "provider": "provider",
        "reference": "reference",
        "type": "type",
        "status": "status",
        "amount": _amount,
        "asset": "asset",
        "adjustments": lambda row: len(row["adjustments"]),
        "flags": lambda row: ", ".join(row["flags"]),
    },
    (
        *("id", "provider", "type", "reference", "status", "status_at", "initial_amount", "amount", "asset", "scheme"),
        *("dispute", "created_at", "flags", "first_seen_at", "updated_at", "adjustments"),
    ),
)
TAIL = Columns(
    {
        "first seen": lambda row: seconds(row["first_seen_at"]),
        **{name: PAYMENTS.table[name] for name in ("provider", "reference", "type", "status", "amount", "asset")},
    },
    PAYMENTS.fields,
)
EVENTS = Columns(
    {
        "event": "status",
        "amount": _amount,
        "asset": "asset",
        "effective": lambda row: seconds(row["effective_at"]),
        "applied": "applied",
        "from": origin_of,
        "log": log_place,
        "run": lambda row: short(row["run"]),
    },
    (
        *("event_id", "key", "status", "amount", "asset", "effective_at", "revision_at", "applied", "topic"),
        *("partition", "offset", "run", "connector", "source_object", "path", "position", "line", "raw"),
        "first_seen_at",
    ),
)


@group.command("list")
def list_(
    provider: ProviderOption = None,
    status: StatusOption = None,
    type_: TypeOption = None,
    asset: Annotated[str | None, typer.Option(help="Only payments in this asset, such as INR.")] = None,
    reference: Annotated[str | None, typer.Option(help="Only payments with this reference.")] = None,
    connector: ConnectorOption = None,
    since: Annotated[str, typer.Option("--from", help=f"Created at this instant or later; {instant.HELP}.")] = "",
    until: Annotated[str, typer.Option("--to", help="Created before this instant.")] = "",
    after: AfterOption = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List payments, the latest arrival first."""
    chosen = {
        "provider": provider,
        "status": status,
        "type": type_,
        "asset": asset,
        "reference": reference,
        "connector": connector,
        "since": instant_of(since, "--from"),
        "until": instant_of(until, "--to"),
    }
    is_filtered = after is not None or any(each is not None for each in chosen.values())
    listing = Listing(output, PAYMENTS, empty="no payments match" if is_filtered else "no payments yet")
    ask(lambda api: list_rows(api, "/payments", chosen, listing, limit=limit, after=after))


@group.command("show")
def show(
    payment: PaymentArgument,
    provider: ProviderOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one payment and its adjustments; `lineage` tells where they came from."""
    found = ask(lambda api: _found(api, payment, provider))
    print_one(output, found, PAYMENTS.fields, _shown(found))
    if output is not Output.TABLE:
        return
    note("")
    rows = [
        (
            each["status"],
            _amount(each, "signed_amount"),
            each["asset"],
            seconds(each["effective_at"]),
            each["reference"],
            each["connector_name"],
        )
        for each in found["adjustments"]
    ]
    print_table(("adjustment", "amount", "asset", "effective", "reference", "connector"), rows)


@group.command("lineage")
def lineage(
    payment: PaymentArgument,
    provider: ProviderOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Follow a payment back: to its events, their places in the log, their runs, and the file's line or the API's page.

    JSON lines and CSV have the events alone.
    """
    found = ask(lambda api: _followed(api, payment, provider))
    if output in {Output.JSON, Output.YAML}:
        print_data(output, found)
        return
    if output is Output.TABLE:
        note(f"payment {cell(found['payment']['id'])}")
    listing = Listing(output, EVENTS)
    listing.add(found["events"])
    listing.end()


@group.command("tail")
def tail(
    provider: ProviderOption = None,
    status: StatusOption = None,
    type_: TypeOption = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, max=200, help="So many that are there already.")] = 10,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    Show payments as they are first seen, until Ctrl-C; the oldest first.

    To watch, and no promise: who needs each of them lists them. As table, jsonl or csv.
    """
    if output in {Output.JSON, Output.YAML}:
        raise typer.BadParameter("what has no end is a table, jsonl or csv", param_hint="--output")
    chosen = {"provider": provider, "status": status, "type": type_}
    ask(lambda api: _follow(api, chosen, _Lines(output), lines))


# objects of the API, here and below
def _shown(one: Mapping[str, Any]) -> list[tuple[str, object]]:
    initial = _amount(one, "initial_amount")
    return [
        ("payment", one["id"]),
        ("provider", one["provider"]),
        ("reference", one["reference"]),
        ("type", one["type"]),
        ("status", one["status"]),
        ("dispute", one["dispute"]),
        ("amount", f"{_amount(one)} {one['asset']}"),
        ("initial", None if initial is None else f"{initial} {one['asset']}"),
        ("scheme", one["scheme"]),
        ("created", seconds(one["created_at"])),
        ("flags", ", ".join(one["flags"])),
    ]


async def _found(api: Client, wanted: str, provider: str | None) -> dict[str, Any]:
    """
    The payment of this id, or of this reference (of `provider`, where several share it).

    Raises:
        NotFound: there is none. Conflict: several have the reference.
    """
    from tillstream.cli.path import part
    from tillstream.cli.problem import ApiProblem

    try:
        found: dict[str, Any] = await api.get(f"/payments/{part(wanted)}")
        return found
    except ApiProblem as exc:
        if exc.code != NotFound.code:
            raise
    rows = await api.rows("/payments", {"reference": wanted, "provider": provider}, limit=2)
    if len(rows) > 1:
        raise Conflict(f"several payments have the reference {wanted!r}", hint="name the provider, or give the id")
    if not rows:
        raise NotFound(f"there is no payment {wanted!r}", hint="`till payment list` shows them")
    return rows[0]


async def _followed(api: Client, wanted: str, provider: str | None) -> dict[str, Any]:
    from tillstream.cli.path import part

    found = await _found(api, wanted, provider)
    followed: dict[str, Any] = await api.get(f"/payments/{part(found['id'])}/lineage")
    return followed


class _Lines:
    """Rows without an end; a table's columns keep their places as far as they can."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._listing = Listing(output, PAYMENTS)
        shown = TAIL.known() if LAYOUT.columns else TAIL.table
        names = list(shown)
        self._columns = [(names[place], shown[names[place]]) for place in positions(names)]
        if output is Output.TABLE and LAYOUT.headers:
            self._print([name for name, _ in self._columns])

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print them now."""
        if self._output is not Output.TABLE:
            self._listing.add(rows)
            return
        for row in rows:
            self._print([cell(told(row, each)) for _, each in self._columns])
        sys.stdout.flush()

    def _print(self, words: Sequence[str]) -> None:
        widths = [_WIDTHS.get(name, _USUAL_WIDTH) for name, _ in self._columns]
        print_lines(["  ".join(word.ljust(width) for word, width in zip(words, widths, strict=True)).rstrip()])


async def _follow(api: Client, chosen: Mapping[str, str | None], to: _Lines, lines: int) -> None:
    if lines or any(chosen.values()):  # also tells what is wrong with a filter
        there, _ = await page_of(api, "/payments", {**chosen, "limit": max(lines, 1)})
        to.add(there[:lines][::-1])
    _, known = await _unknown(api, set(), most_pages=1)
    while True:
        await asyncio.sleep(_EVERY_S)
        new, latest = await _unknown(api, known, most_pages=_MOST_PAGES)
        wanted = [row for row in new if all(value in (None, row[name]) for name, value in chosen.items())]
        to.add(wanted[::-1])
        known = latest | {row["id"] for row in new}


async def _unknown(api: Client, known: set[str], *, most_pages: int) -> tuple[list[dict[str, Any]], set[str]]:
    """
    Payments that are not known, the newest first, and the ids of the first page. One that is known ends the look.

    Unfiltered: a page of few matches would look through everything.
    """
    new: list[dict[str, Any]] = []
    latest: set[str] = set()
    after: str | None = None
    for _ in range(most_pages):
        rows, after = await page_of(api, "/payments", {"limit": PAGE, "after": after})
        latest = latest or {row["id"] for row in rows}
        unknown = [row for row in rows if row["id"] not in known]
        new += unknown
        if len(unknown) < len(rows) or after is None:
            break
    return new, latest
