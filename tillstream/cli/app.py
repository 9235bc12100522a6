"""The command tree of `till`. Commands are thin: they read options, call a service, print what it returns."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer.main

from schemas.errors import TillError
from tillstream.cli import (
    api,
    apply,
    complete,
    completion,
    connector,
    contexts,
    cursor,
    deadletter,
    demo,
    info,
    ledger,
    payment,
    replay,
    run,
    source,
    stack,
    topic,
    worker,
)
from tillstream.cli.context import FLAGS, explained
from tillstream.cli.exit import ExitStatus, status_of
from tillstream.cli.output import note, print_error
from tillstream.cli.tree import with_layout

app = typer.Typer(
    name="till",
    help="Payments from everywhere, through Kafka, into one PostgreSQL table: none lost, none counted twice.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,  # `till completion`
)

for _part in (demo, stack, worker, info):
    _part.register(app)
for _name, _group in (
    ("payment", payment.group),
    ("source", source.group),
    ("connector", connector.group),
    ("run", run.group),
    ("deadletter", deadletter.group),
    ("replay", replay.group),
    ("ledger", ledger.group),
    ("topic", topic.group),
    ("api", api.group),
    ("context", contexts.group),
    ("config", info.config_group),
    ("completion", completion.group),
):
    app.add_typer(_group, name=_name)
connector.group.add_typer(cursor.group, name="cursor")


apply.register(app, connector.group)


@app.callback()
def options(  # noqa: PLR0917  Typer reads options from the signature
    config: Annotated[
        Path | None, typer.Option(help="TOML file of settings; else TILL_CONFIG, else ./till.toml.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Home of the stack to work with; else TILL_HOME.")] = None,
    api_: Annotated[
        str | None,
        typer.Option("--api", metavar="URL", help="The API to ask; else the context's, or the home's."),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="The context whose API to ask: see `till context`.", autocompletion=complete.contexts
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as log.level=debug. Repeatable."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log everything, and show tracebacks.")] = False,
) -> None:
    """Options of every command; they stand before its name."""
    FLAGS.config, FLAGS.home, FLAGS.verbose = config, home, verbose
    FLAGS.api, FLAGS.context = api_, context
    FLAGS.settings.clear()
    for each in set_ or []:
        key, equals, value = each.partition("=")
        if not equals:
            raise typer.BadParameter(f"{each!r} is not KEY=VALUE", param_hint="--set")
        FLAGS.settings[key.strip()] = value


# a command of Click's, which Typer hides
def tree() -> Any:
    """The whole tree of commands, with the options that are added to many."""
    completion.know_shells()
    return with_layout(typer.main.get_command(app))


def main() -> None:
    """Run `till`. An error of ours is printed as code, message and hint, and has an exit status of its own."""
    try:
        tree()(prog_name="till")
    except TillError as exc:
        if FLAGS.verbose:
            raise
        print_error(explained(exc))
        sys.exit(status_of(exc))
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has enough
        sys.exit(ExitStatus.OK)
    except KeyboardInterrupt:
        sys.exit(ExitStatus.INTERRUPTED)
    except Exception as exc:
        if FLAGS.verbose:
            raise
        note(f"error [internal]: {type(exc).__name__}: {exc}")
        note("  hint: this is a bug; `till -v …` shows where")
        sys.exit(ExitStatus.FAILED)
