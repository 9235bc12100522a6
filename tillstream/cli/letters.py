"""Which dead letters a command means: by name, or by what they are; and how the API is asked for them."""
# ruff: noqa: PLC0415  imports wait until a command runs: `till --help` stays fast

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from tillstream.cli.rows import page_of

if TYPE_CHECKING:
    from tillstream.cli.client import Client

MOST = 10_000  # that the API takes at once
_LISTS = ("sent", "discarded", "known")  # ids in an answer


@dataclass(frozen=True, slots=True)
class Wanted:
    """Letters by name, or else by what they are."""

    letters: Sequence[str] = ()
    stage: str | None = None
    reason: str | None = None
    connector: str | None = None
    run: str | None = None
    corrected: bool = False

    def __bool__(self) -> bool:
        return any((self.letters, self.stage, self.reason, self.connector, self.run, self.corrected))

    async def chosen(self, api: Client) -> dict[str, object]:
        """As the API takes it; ids are whole."""
        from tillstream.cli.path import part

        if self.letters:
            found = [(await api.get(f"/dead-letters/{part(each)}"))["id"] for each in self.letters]
            return {"ids": list(dict.fromkeys(found))}
        return await self.filters(api)

    async def filters(self, api: Client) -> dict[str, object]:
        """
        What a list is filtered by, without what is not asked for.

        Raises:
            typer.BadParameter: nobody gives such a reason. NotFound: there is no such run.
        """
        from tillstream.cli.path import part

        if self.reason is not None:
            await _check_reason(api, self.reason)
        run = None if self.run is None else (await api.get(f"/runs/{part(self.run)}"))["id"]
        told: dict[str, object | None] = {
            "stage": self.stage,
            "reason": self.reason,
            "connector": self.connector,
            "run": run,
            "corrected": self.corrected or None,
        }
        return {name: value for name, value in told.items() if value is not None}


# an object of the API
async def act(
    api: Client,
    verb: str,
    wanted: Wanted,
    more: Mapping[str, object],
    *,
    limit: int | None,
    dry_run: bool,
) -> dict[str, Any]:
    """
    Redrive or discard the letters, all of them or the newest `limit`; what the API answered.

    It takes ten thousand at once. What there is beyond is asked of it again, by ids; then the answers are one, and
    `run_ids` beside `run_id` names every run.
    """
    chosen, params = await wanted.chosen(api), {"dry_run": True} if dry_run else {}
    body = {**(chosen or {"every": True}), **more, "limit": min(MOST, limit or MOST)}
    done: dict[str, Any] = await api.post(f"/dead-letters:{verb}", body, params=params)
    if "ids" in chosen or len(_named(done)) < MOST or (limit is not None and limit <= MOST):
        return done
    async for ids in _others(api, chosen, known=_named(done), limit=None if limit is None else limit - MOST):
        _add(done, await api.post(f"/dead-letters:{verb}", {"ids": ids, **more}, params=params))
    return done


async def _others(
    api: Client, filters: Mapping[str, object], *, known: set[str], limit: int | None
) -> AsyncIterator[list[str]]:
    """Open letters that are not known yet, so many ids at a time as the API takes."""
    ids: list[str] = []
    async for row in api.pages("/dead-letters", filters):
        if limit is not None and limit <= 0:
            break
        if row["id"] not in known:
            ids.append(row["id"])
            limit = None if limit is None else limit - 1
        if len(ids) == MOST:
            yield ids
            ids = []
    if ids:
        yield ids


# objects of the API, here and below
def _named(done: Mapping[str, Any]) -> set[str]:
    return {*(each for name in _LISTS for each in done.get(name, ())), *(each["id"] for each in done["refused"])}


def _add(done: dict[str, Any], more: Mapping[str, Any]) -> None:
    for name in (*_LISTS, "refused"):
        if name in done:
            done[name] += more[name]
    if more.get("run_id") is not None:
        done["run_ids"] = [*done.get("run_ids", filter(None, [done["run_id"]])), more["run_id"]]
        done["run_id"] = done["run_id"] or more["run_id"]


async def _check_reason(api: Client, reason: str) -> None:
    """A reason that nobody gives is a slip; those of plugins and of foreign letters are known by their letters."""
    from tillstream.reason import reasons

    known = reasons()
    if reason not in known and not (await page_of(api, "/dead-letters/groups", {"reason": reason, "state": "all"}))[0]:
        raise typer.BadParameter(f"{reason!r} is none of {', '.join(known)}", param_hint="--reason")
