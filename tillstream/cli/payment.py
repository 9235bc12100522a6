"""`till payment`: what the events came to."""
# ruff: noqa: PLC0415, PLR0917  imports wait until a command runs; Typer reads options from the signature

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillstream.cli import context
from tillstream.cli.option import LimitOption, OutputOption
from tillstream.cli.output import Output, note, print_data, print_fields, print_table

if TYPE_CHECKING:
    from sinks.read import Page, PaymentDetail

group = typer.Typer(help="What the events came to.", no_args_is_help=True)

ProviderOption = Annotated[str | None, typer.Option(help="Only payments of this provider.")]


@group.command("list")
def list_(
    provider: ProviderOption = None,
    status: Annotated[
        str | None, typer.Option(help="Only payments in this status, such as settled; a wrong one tells them all.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Only payments with this reference.")] = None,
    after: Annotated[str | None, typer.Option(help="Go on after a page: its `next`.")] = None,
    limit: LimitOption = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """
    List payments, the latest arrival first.

    JSON has the shape of `GET /payments`, and beside it each payment's own `state` and `amount`.
    """
    _check_status(status)
    page = context.run(_listed(provider, status, reference, limit, after))
    if output is not Output.TABLE:
        print_data(
            output, {"data": [_element(each) for each in page.payments]} | ({"next": page.next} if page.next else {})
        )
        return
    is_filtered = any(wanted is not None for wanted in (provider, status, reference, after))
    print_payments(page.payments, empty="no payments match" if is_filtered else "no payments yet")
    if page.next:
        note(f"more: --after {page.next}")


@group.command("show")
def show(
    payment: Annotated[str, typer.Argument(help="Its id, or its reference.")],
    provider: ProviderOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show one payment: its adjustments, and where each of its events came from."""
    found = context.run(_found(payment, provider))
    if output is not Output.TABLE:
        print_data(output, _whole(found))
        return
    from schemas.money import format_major

    one = found.payment
    print_fields(
        [
            ("payment", one.id),
            ("provider", one.provider),
            ("reference", one.reference),
            ("type", one.type),
            ("status", one.status),
            ("dispute", one.dispute),
            ("amount", f"{format_major(one.amount, one.asset)} {one.asset}"),
            (
                "initial",
                None if one.initial_amount is None else f"{format_major(one.initial_amount, one.asset)} {one.asset}",
            ),
            ("scheme", one.scheme),
            ("flags", ", ".join(one.flags)),
        ]
    )
    note("")
    rows = [
        (
            each.status,
            format_major(each.signed_amount, each.asset),
            each.asset,
            each.effective_at,
            each.reference,
            _place(each),
        )
        for each in found.adjustments
    ]
    print_table(("adjustment", "amount", "asset", "effective", "reference", "from"), rows)


def print_payments(payments: Any, *, empty: str = "no payments yet") -> None:
    """A table of payments, amounts as people read them."""
    from schemas.money import format_major

    rows = []
    for each in payments:
        one = each.payment
        amount = format_major(one.amount, one.asset)
        rows.append(
            (
                one.provider,
                one.reference,
                one.type,
                one.status,
                amount,
                one.asset,
                one.adjustments,
                ", ".join(one.flags),
            )
        )
    columns = ("provider", "reference", "type", "status", "amount", "asset", "adjustments", "flags")
    print_table(columns, rows, empty=empty)


def _check_status(status: str | None) -> None:
    from schemas.payment import Status

    if status is not None and status not in list(Status):
        raise typer.BadParameter(f"{status!r} is none of {', '.join(Status)}", param_hint="--status")


async def _listed(
    provider: str | None, status: str | None, reference: str | None, limit: int, after: str | None
) -> Page:
    from tillstream.control import payment as payments

    async with context.pool(context.settings()) as pool:
        return await payments.list_payments(
            pool,
            provider=provider,
            status=status,
            reference=reference,
            limit=limit,
            after=after,
        )


async def _found(wanted: str, provider: str | None) -> PaymentDetail:
    from tillstream.control import payment as payments

    async with context.pool(context.settings()) as pool:
        return await payments.find(pool, wanted, provider=provider)


def _whole(found: PaymentDetail) -> dict[str, object]:
    """An element of the list, and beside it all that is known."""
    one = found.payment
    return {**_element(found), "dispute": one.dispute, "flags": one.flags, "events": found.events}


def _element(found: PaymentDetail) -> dict[str, object]:
    """Seed 000's element, and beside it the status and the amount of now, which it has no word for."""
    from sinks.view import payment_view

    return {**payment_view(found), "state": found.payment.status, "amount": found.payment.amount}


def _place(adjustment: Any) -> str:
    if adjustment.path:
        return f"{adjustment.path}{f':{adjustment.line}' if adjustment.line else ''}"
    return f"{adjustment.topic}/{adjustment.log_partition}@{adjustment.log_offset}"
