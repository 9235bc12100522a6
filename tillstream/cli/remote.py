"""What commands do over the API: ask it, say which is meant, and end as every command does."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from tillstream.cli import address, context

if TYPE_CHECKING:
    from tillstream.cli.client import Client

Result = TypeVar("Result")


def ask(work: Callable[[Client], Awaitable[Result]], *, left: str = "interrupted") -> Result:
    """
    What `work` makes of the API that is meant; `left` is what is said if Ctrl-C ends it.

    Raises:
        ApiProblem: it was refused. ApiUnavailable: nobody answers. ApiForeign: something else answers. ConfigError,
            NotFound: it is not clear which API is meant.
    """
    from tillstream.cli.client import using

    return context.run(using(address.finder(), work), left=left)
