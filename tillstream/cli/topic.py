"""`till topic`: where consumers stand, and what flows."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

import typer

from tillstream.cli import context
from tillstream.cli.option import DocumentOption, OutputOption
from tillstream.cli.output import DocumentOutput, Output, print_data
from tillstream.cli.remote import ask
from tillstream.cli.rows import Columns, Listing, page_of

group = typer.Typer(help="Topics: what flows, and where their consumers stand.", no_args_is_help=True)


LAG = Columns(
    {
        "group": "group",
        "topic": "topic",
        "partition": "partition",
        "committed": "committed",
        "stored": "stored",
        "end": "end",
        "lag": "lag_events",
        "oldest s": lambda row: round(row["lag_s"], 1),
    },
    ("group", "topic", "partition", "committed", "stored", "begin", "end", "lag_events", "lag_s"),
)


@group.command("lag")
def lag(output: OutputOption = Output.TABLE) -> None:
    """
    Measure how far each consumer group is behind; the API asks the broker.

    The sink starts from the lower of its group's offset and the one it stored, which is shown where PostgreSQL answers.
    """
    found = ask(lambda api: page_of(api, "/lag", {}))
    listing = Listing(output, LAG, empty="no partitions")
    listing.add(found[0])
    listing.end()


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
