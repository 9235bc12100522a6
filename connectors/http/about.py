"""What the page of the HTTP source tells beside its options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# a configuration: any JSON
EXAMPLE: Mapping[str, Any] = {
    "api_base_url": "https://api.example.com/v1",
    "authentication_type": "bearer",
    "token": "${env:TILL_SECRET_EXAMPLE_TOKEN}",
    "type": "payin",
    "columns": {"reference": "id", "asset": "currency", "effective_at": "created_at"},
    "status_map": {"paid": "succeeded"},
    "updated_at": "updated_at",
    "resources": [
        {
            "name": "charges",
            "path": "/charges",
            "query": {"updated_from": "{from}", "updated_to": "{to}", "limit": "{size}", "after": "{cursor}"},
            "records": "$.data",
            "paging": "cursor",
            "next": "$.next_cursor",
            "time": "$.updated_at",
        }
    ],
}

NOTES = """
A **resource** is one list of the API. Its `path`, `query` and `body` name places that change from page to page:
`{from}`, `{to}`, `{date}`, `{merchant_code}`, `{size}`, `{page}`, `{offset}`, `{cursor}`, `{after_id}`,
`{after_time}`. A parameter whose place has no value yet is left out.

**Windows.** `rolling` asks for what is new, in windows that are frozen before their first page and end `settle_s`
ago; each begins `overlap_s` before the last one was read, for what turns up late. Without `{to}` an API gives all until
now; what is younger than the window waits for the next one. `day` asks for each day of the connector's `timezone` at
`daily_at` of the next one, `settle_s` after it ended at the earliest, and again after each of `reread_days`, or as soon
as a worker is back. `feed` goes on from the place where the last poll ended, `whole` reads everything each time. What
was read before costs no second event.

**Paging.** `keyset` loses nothing, whatever moves: each page begins after the last record of the one before. `page`
and `offset` are read until two readings of a window agree. `cursor` and `link` are as good as the API makes them.
[The decision](../decisions/014-http.md) tells what each promises.

**Secrets.** Beside the options that name one, `request_headers`, `query` and `body` take references inside texts:
`Authorization: Bearer ${env:TILL_SECRET_TOKEN}`. Under a name such as `X-Api-Key` or `access_token` a spelled value is
refused. In production no secret goes to an address without TLS.

**Templates.** `template: razorpay` and `template: sabpaisa` fill in addresses, lists and words; what is said beside
them comes first. Seed 003's `retry_count` and `auto_retry` (true or false) are understood.

**Errors.** 401 and 403 pause the connector, as does any other 4xx; 429, 5xx, timeouts and answers that are cut or no
JSON are tried again, after what `Retry-After` asks for, up to `retry_after_max_s`. A record that is wrong is a dead
letter with its own text, and its neighbours pass.

**Pace.** `requests_per_s` counts every request: a redirect's hop, a second attempt after a 401, one for a token.
"""
