"""
The source itself. It is imported when a connector is made, not wherever kinds are listed: asyncssh comes with it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial

from connectors.context import SourceContext
from connectors.files.reading import FileReader, LocalFile, is_end
from connectors.files.thread import Threads
from connectors.remote.aftermath import Aftermath, Finishing
from connectors.remote.arrivals import Arrivals
from connectors.remote.check import Checkup
from connectors.remote.config import SftpConfig
from connectors.remote.door import Door
from connectors.remote.fetch import Fetcher
from connectors.remote.folder import Chooser, RemoteFile
from connectors.remote.login import Login
from connectors.remote.options import Checksum
from connectors.remote.pages import Page, paged
from connectors.remote.pattern import NamePattern, Window
from connectors.remote.rest import Rest
from connectors.remote.staging import Staging
from connectors.source import Batch, CheckStep, Cursor, Progress, Request, Task
from schemas import metric

_MOST_EMPTY_S = 1.0  # between two pages


class SftpSource:
    """Publishes every file at rest in a remote folder, each content once."""

    def __init__(self, config: SftpConfig, context: SourceContext) -> None:
        self._config = config
        self._context = context
        self._threads = Threads(limit=4 * config.parallel + 8)
        self._reader = FileReader(config, context, self._threads)
        self._guard = context.guard(config.allow_networks)
        self._login = Login(config.account, self._guard, context.secrets)
        self._door = Door(self._login)
        self._staging = Staging(context.staging, self._threads)
        self._chooser = Chooser(
            NamePattern(config.pattern),
            config.zone,
            sidecar_suffix=config.checksum_ext,
            with_sidecars=config.downloads.checksum is not Checksum.OFF,
            is_readable=lambda name: config.format_of(name) is not None,
        )
        tell = partial(context.meter.add, metric.DOWNLOADED_BYTES_TOTAL, connector=context.connector)
        self._fetcher = Fetcher(config.downloads, self._door, self._staging, self._threads, context.clock, tell=tell)
        self._finishing = Finishing(Aftermath(config.after_read, config.folder, config.target), self._door)
        self._arrivals = Arrivals(
            self._door,
            self._fetcher,
            self._staging,
            self._finishing,
            place=config.place,
            folder=config.folder,
            chooser=self._chooser,
            rest=Rest(config.rest_s, context.clock),
            parallel=config.parallel,
        )

    def tasks(self, known: Mapping[str, Cursor]) -> AsyncIterator[Page]:
        """
        A task for each file at rest, oldest first, as it is downloaded and verified.

        Raises:
            SourceUnavailable: the server cannot be reached, or the folder not be listed. Disposition: retry.
            SourceMisconfigured, SourceUnauthorised: not with this configuration. Disposition: pause.
        """
        return self._pages(known, self._window(), force=False)

    def requested(self, known: Mapping[str, Cursor], request: Request) -> AsyncIterator[Page]:
        """
        The same for the days that are asked for; with `force` files that are known are downloaded again.

        Raises:
            As `tasks`.
        """
        window = Window(request.since, request.until)
        return self._pages(known, self._window() if window.is_open else window, force=request.force)

    async def read(self, task: Task, since: Cursor | None) -> AsyncIterator[Batch]:
        """
        The records of the staged copy after `since`.

        Raises:
            SourceUnavailable: the copy is gone; the next listing brings it again. Disposition: retry.
        """
        self._finishing.reads(task.key)
        if is_end(since):
            return
        file: RemoteFile = task.context
        staged = await self._staging.file(task.key)
        local = LocalFile(str(self._staging.folder), staged, os.fsdecode(file.entry.name), file.stamp)
        async with aclosing(self._reader.batches(local, task, since)) as batches:
            async for batch in batches:
                self._fetcher.moved()
                yield batch

    async def finish(self, task: Task) -> None:
        """Let go of the staged copy, and do with the remote file as the configuration says. Raises nothing."""
        await self._arrivals.done(task.key)
        await self._finishing.finish(task.context, task.key)

    @property
    def progress(self) -> Sequence[Progress]:
        """The downloads that are under way."""
        return self._fetcher.progress

    async def check(self) -> Sequence[CheckStep]:
        """Name, connection, host key, login, folder, and a first file's first records."""
        config = self._config
        checkup = Checkup(config.account, self._guard, self._login, folder=config.folder, chooser=self._chooser)
        return await checkup.run(self._reader)

    async def close(self) -> None:
        """Leave the server, and remove what is staged. Raises nothing."""
        await self._door.close()
        await self._staging.close()
        self._threads.close()

    def _window(self) -> Window:
        return Window.back(self._config.look_back_days, self._context.clock.now(), self._config.zone)

    def _pages(self, known: Mapping[str, Cursor], window: Window, *, force: bool) -> AsyncIterator[Page]:
        return paged(
            lambda emit: self._arrivals.offer(known, window, emit, force=force),
            every_s=min(_MOST_EMPTY_S, self._config.deadline_s / 4),
        )
