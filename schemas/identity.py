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
from json.encoder import encode_basestring
from urllib.parse import quote
from uuid import UUID

from schemas.payment import MEANINGS, Kind, PaymentPayload

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
    return f"{quote(provider, safe='')}/{original_reference}"


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


def payment_digest(payment: PaymentPayload) -> bytes:
    """16 bytes that stand for the payment id: the sink's key of a payment."""
    return _hash(payment.provider, payment.original_reference, payment.type)


def adjustment_key(payment: PaymentPayload) -> bytes:
    """
    16 bytes, a hash of content and never of arrival, so that the same fact from two files is one adjustment.

    Delta: (payment, its own reference, status). Everything else: (payment, status, effective_at, amount).
    """
    provider, original, type_ = payment.provider, payment.original_reference, payment.type
    if MEANINGS[payment.status].kind is Kind.DELTA:
        return _hash(provider, original, type_, payment.status, "delta", payment.reference)
    return _hash(provider, original, type_, payment.status, _instant(payment.effective_at), str(payment.amount))


def content_hash(payment: PaymentPayload) -> bytes:
    """
    16 bytes over everything the record says: breaks ties between equal revisions, and shows two texts under one key.
    """
    return _hash(
        payment.provider,
        payment.reference,
        payment.parent_reference or "",
        payment.type,
        payment.status,
        str(payment.amount),
        payment.asset,
        payment.scheme,
        _instant(payment.effective_at),
        "-" if payment.raw is None else "+" + payment.raw,
    )


def _instant(at: datetime | None) -> str:
    return "" if at is None else at.isoformat()


def _hash(*parts: str) -> bytes:
    text = "".join([f"{len(part)}:{part}" for part in parts])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:16]
