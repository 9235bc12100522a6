"""
Every identity in one place: pure functions of content, the same on every machine, in every process, for ever.

Hashes are the first 16 bytes of SHA-256 over netstrings (`length:text`), which no choice of field values can make
ambiguous.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from json.encoder import encode_basestring
from urllib.parse import quote
from uuid import UUID

from msgspec.json import Encoder

from schemas.payment import MEANINGS, Kind, PaymentType, Status
from schemas.wire import Payment

DIGEST_MODULUS = 1 << 128


def event_id(connector_id: UUID, source_object: str, position: str) -> str:
    """
    Id of the record at `position` of `source_object` (a content hash, or the provider's own object): 32 hex digits.

    Reading the same record again gives the same id; changed content is another object and gives another id.
    """
    return _hash(str(connector_id), source_object, position).hex()


def event_digest(identifier: str) -> bytes:
    """16 bytes that stand for an event id of any spelling: the sink's key, and what run ledgers add up modulo 2^128."""
    return hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).digest()[:16]


def digest_sum(digests: Iterable[bytes], start: int = 0) -> int:
    """Sum of digests modulo 2^128: equal for equal multisets, in whatever order."""
    return (start + sum(int.from_bytes(digest) for digest in digests)) % DIGEST_MODULUS


def foreign_id(provider: str, original_reference: str) -> str:
    """
    The Kafka key: one for a payment and all its refunds, captures and disputes. Unambiguous: a provider has no bare
    slash.
    """
    return f"{_quoted(provider)}/{original_reference}"


@lru_cache(maxsize=1_024)
def _quoted(provider: str) -> str:
    return quote(provider, safe="")


def payment_id(provider: str, original_reference: str, type_: str) -> str:
    """
    Seed 000: padded base64url of canonical JSON `{provider, reference, type}`, reversible.

    Source: the `id` of seed 000's `GET /payments` example.
    """
    quoted_provider, quoted_reference = encode_basestring(provider), encode_basestring(original_reference)
    text = f'{{"provider":{quoted_provider},"reference":{quoted_reference},"type":"{type_}"}}'
    return base64.urlsafe_b64encode(text.encode("utf-8", "surrogatepass")).decode("ascii")


def task_id(descriptor: str) -> str:
    """Seed 000: base64 of the descriptor's canonical JSON. Source: `"directory"` is `ImRpcmVjdG9yeSI=`."""
    return base64.b64encode(json.dumps(descriptor, ensure_ascii=False).encode("utf-8", "surrogatepass")).decode("ascii")


def payment_digest(payment: Payment) -> bytes:
    """16 bytes that stand for the payment id: the sink's key of a payment."""
    return payment_digest_of(payment.provider, payment.original_reference, payment.type)


def payment_digest_of(provider: str, original_reference: str, type_: str) -> bytes:
    """The same, of a payment that is named by its parts."""
    return _hash(provider, original_reference, type_)


def adjustment_key(payment: Payment) -> bytes:
    """
    16 bytes, a hash of content and never of arrival, so that the same fact from two files is one adjustment.

    Delta: (payment, its own reference, status). Everything else: (payment, status, effective_at, amount).
    """
    return payment_digests(payment)[1]


def content_hash(payment: Payment) -> bytes:
    """
    16 bytes over everything the record says: breaks ties between equal revisions, and shows two texts under one key.
    """
    return payment_digests(payment)[2]


def payment_digests(payment: Payment) -> tuple[bytes, bytes, bytes]:
    """
    `payment_digest`, `adjustment_key` and `content_hash` at once: every event needs all three.

    Netstrings are written out, because a loop over the parts takes thrice the time; a test holds them equal to `_hash`.
    """
    provider, reference, parent = payment.provider, payment.reference, payment.parent_reference or ""
    original, status, type_part = parent or reference, payment.status, _TYPE_PART[payment.type]
    status_part, amount, at = _STATUS_PART[status], str(payment.amount), _instant(payment.effective_at)
    asset, scheme, raw = payment.asset, payment.scheme, payment.raw
    provider_part, own_part = f"{len(provider)}:{provider}", f"{len(reference)}:{reference}"
    amount_part, at_part = f"{len(amount)}:{amount}", f"{len(at)}:{at}"
    whose = f"{provider_part}{len(original)}:{original}{type_part}"
    what = f"5:delta{own_part}" if status in _DELTAS else f"{at_part}{amount_part}"
    kept = "1:-" if raw is None else f"{len(raw) + 1}:+{raw}"
    said = (
        f"{provider_part}{own_part}{len(parent)}:{parent}{type_part}{status_part}{amount_part}"
        f"{len(asset)}:{asset}{len(scheme)}:{scheme}{at_part}{kept}"
    )
    return _sha(whose), _sha(f"{whose}{status_part}{what}"), _sha(said)


_STATUS_PART = {status: f"{len(status)}:{status}" for status in Status}
_TYPE_PART = {type_: f"{len(type_)}:{type_}" for type_ in PaymentType}
_DELTAS = frozenset(status for status, meaning in MEANINGS.items() if meaning.kind is Kind.DELTA)
_spelled = Encoder().encode


def _instant(at: datetime | None) -> str:
    """As `isoformat` spells it, in half its time."""
    if at is None:
        return ""
    text = _spelled(at).decode()  # in quotes
    return f"{text[1:-2]}+00:00" if text[-2] == "Z" else at.isoformat()


def _hash(*parts: str) -> bytes:
    return _sha("".join([f"{len(part)}:{part}" for part in parts]))


def _sha(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
