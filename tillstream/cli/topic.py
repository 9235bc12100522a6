"""`till topic`: where consumers stand."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from tillstream.cli import context
from tillstream.cli.option import OutputOption
from tillstream.cli.output import Output, print_json, print_table

if TYPE_CHECKING:
    from streams.lag import PartitionLag

group = typer.Typer(help="Topics, and where their consumers stand.", no_args_is_help=True)


@group.command("lag")
def lag(output: OutputOption = Output.TABLE) -> None:
    """Measure how far each consumer group is behind, asking the broker alone."""
    found = context.run(_measured())
    if output is Output.JSON:
        print_json(found)
        return
    rows = [
        (each.group, each.topic, each.partition, each.committed, each.end, each.lag_events, round(each.lag_s, 1))
        for each in found
    ]
    print_table(("group", "topic", "partition", "committed", "end", "lag", "oldest s"), rows, empty="no partitions")


async def _measured() -> list[PartitionLag]:
    from streams.lag import LagProbe
    from tillstream.wiring import watched_groups

    chosen = context.settings()
    async with LagProbe(chosen.kafka.bootstrap) as probe:
        return [each for group, topic in watched_groups(chosen).items() for each in await probe.measure(group, [topic])]
