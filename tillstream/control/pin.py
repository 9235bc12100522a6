"""
The host key of an SFTP server on this machine, pinned when it is first met: seed 004's example names none.

Elsewhere there is no trust on first use: somebody could stand in between. On loopback nobody does who is not this
machine's already.
"""

from __future__ import annotations

import logging

from connectors.context import SourceContext
from connectors.spec import SourceSpec
from schemas.errors import TillError
from sinks.pool import Pool
from tillstream.control import connector as connectors
from tillstream.control import dialect
from tillstream.control.connector import ConnectorView

logger = logging.getLogger(__name__)

KIND = "sftp"


async def pin(pool: Pool, view: ConnectorView, spec: SourceSpec, context: SourceContext) -> ConnectorView:
    """
    The connector with the host key of its server pinned, where that is on this machine and none is pinned yet.

    A server that does not answer is left as it is: what is tried next tells.

    Raises:
        SinkError: as routed.
    """
    options = view.configuration
    if view.kind != KIND or options.get("host_key") or not dialect.is_local(options) or context.production:
        return view
    from connectors.remote.login import Login, fingerprint  # noqa: PLC0415  asyncssh is for those who use it

    try:
        config = connectors.checked(spec, options, name=view.name, provider=view.provider)
        login = Login(config.account, context.guard(config.allow_networks), context.secrets)  # type: ignore[attr-defined]  # an SftpConfig
        keys = await login.host_keys()
    except TillError as exc:
        logger.info("no host key to pin yet", extra={"facts": {"connector": view.name, "error": exc}})
        return view
    host_key = ",".join(sorted({fingerprint(key) for key in keys}))
    await connectors.configure(pool, view, spec=spec, configuration={**options, "host_key": host_key})
    logger.info("host key of this machine's server pinned", extra={"facts": {"connector": view.name, "key": host_key}})
    return await connectors.find(pool, str(view.id))
