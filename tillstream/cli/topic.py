"""`till topic`: where consumers stand, and what flows."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tillstream.cli import context
from tillstream.cli.option import DocumentOption, OutputOption
from tillstream.cli.output import DocumentOutput, Output, print_data, print_table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from streams.lag import PartitionLag

group = typer.Typer(help="Topics: what flows, and where their consumers stand.", no_args_is_help=True)


@group.command("lag")
def lag(output: OutputOption = Output.TABLE) -> None:
    """
    Measure how far each consumer group is behind, asking the broker.

    The sink starts from the lower of its group's offset and the one it stored, which is shown where PostgreSQL answers.
    """
    found = context.run(_measured())
    if output is not Output.TABLE:
        print_data(output, found)
        return
    rows = [
        (
            each.group,
            each.topic,
            each.partition,
            each.committed,
            each.stored,
            each.end,
            each.lag_events,
            round(each.lag_s, 1),
        )
        for each in found
    ]
    columns = ("group", "topic", "partition", "committed", "stored", "end", "lag", "oldest s")
    print_table(columns, rows, empty="no partitions")


@group.command("asyncapi")
def asyncapi(output: DocumentOption = DocumentOutput.JSON) -> None:
    """
    Print the AsyncAPI 3 document of the installation's topics: what flows, by whom, under which keys.

    Nothing is asked of the broker: names and partitions are those of the settings.
    """
    from tillstream.asyncapi import document
    from tillstream.wiring import topics_of

    chosen = context.settings()
    print_data(Output(output.value), document(topics_of(chosen), prefix=chosen.topic.prefix))


async def _measured() -> list[PartitionLag]:
    from schemas.errors import SinkError
    from sinks.offset import next_offsets
    from streams.lag import LagProbe
    from tillstream.wiring import topics_of, watched_groups

    chosen = context.settings()
    events = topics_of(chosen).events.name

    async def stored() -> Mapping[int, int] | None:
        try:
            async with context.pool(chosen) as pool:
                return await next_offsets(pool, events)
        except SinkError:
            return None

    found: list[PartitionLag] = []
    async with LagProbe(chosen.kafka.bootstrap) as probe:
        for group, topic in watched_groups(chosen).items():
            found += await probe.measure(group, topic, stored=stored if topic == events else None)
    return found
