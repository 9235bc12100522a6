from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint

import pytest

from connectors import adapter
from connectors.adapter import Adapters
from connectors.clock import SystemClock
from connectors.context import SourceContext
from connectors.mapping import BatchBuilder, RecordConfig
from connectors.record import PaymentFacts
from connectors.testing import CONNECTOR
from schemas.errors import RecordRejected, SourceMisconfigured
from schemas.payment import PaymentType, Status

HERE = "tests.unit.connectors.test_adapter"
CANARY = "canary-4711"


class Bank:
    """Reads `C|ref|amount`, as no table of columns can."""

    def facts(self, record: Mapping[str, object]) -> PaymentFacts | None:
        line = str(record["line"])
        if line == "-":
            return None
        if line == "?":
            raise RecordRejected("bank_closed", "the bank is closed")
        direction, reference, amount = line.split("|")
        type_ = {"C": PaymentType.PAYIN, "D": PaymentType.PAYOUT}[direction]
        return PaymentFacts(reference, None, type_, Status.SUCCEEDED, int(amount), "INR", "", None, None)


class Careless:
    def facts(self, record: Mapping[str, object]) -> PaymentFacts | None:
        return PaymentFacts("r", None, PaymentType.PAYIN, Status.SUCCEEDED, 1.5, "INR", "", None, None)  # type: ignore[arg-type]


class Talkative:
    def facts(self, record: Mapping[str, object]) -> PaymentFacts | None:
        raise ValueError(f"cannot read {record}")


class Unmade:
    def __init__(self, password: str) -> None: ...

    def facts(self, record: Mapping[str, object]) -> PaymentFacts | None: ...


class Dirty:
    def facts(self, record: Mapping[str, object]) -> PaymentFacts | None:
        return PaymentFacts("r\x00", None, PaymentType.PAYIN, Status.SUCCEEDED, 1, "INR", "", None, None)


class NoAdapter: ...


def builder(name: str, **options: object) -> BatchBuilder:
    context = SourceContext(CONNECTOR.id, CONNECTOR.name, SystemClock(), adapters=Adapters(["tests.unit"]))
    return BatchBuilder(RecordConfig.model_validate({"adapter": name, **options}).mapper(context, "object"))


def fates(name: str, *lines: str, **options: object) -> tuple[list[str], list[str], int]:
    gathered = builder(name, **options)
    for index, line in enumerate(lines):
        gathered.add({"line": line, "kind": line[:1]}, position=str(index))
    batch = gathered.build({})
    return (
        [each.payment.reference for each in batch.records],
        [each.reason for each in batch.rejections],
        batch.filtered,
    )


def test_an_adapter_reads_what_columns_cannot() -> None:
    assert fates(f"{HERE}:Bank", "C|r-1|100", "-", "D|r-2|5") == (["r-1", "r-2"], [], 1)


def test_headers_and_rules_hold_beside_an_adapter() -> None:
    rule = {"leave_out": [{"column": "line", "prefix": ["D"]}], "headers": {"kind": "kind"}}
    gathered = builder(f"{HERE}:Bank", **rule)
    for line in ("C|r-1|100", "D|r-2|5"):
        gathered.add({"line": line, "kind": line[:1]}, position="1")

    batch = gathered.build({})

    assert [(each.payment.reference, each.headers) for each in batch.records] == [("r-1", {"kind": "C"})]
    assert batch.filtered == 1


def test_an_adapters_error_rejects_its_record_and_no_other() -> None:
    assert fates(f"{HERE}:Bank", "C|r-1|1", "?", "nonsense", "X|r|1", "C|r-2|1") == (
        ["r-1", "r-2"],
        ["bank_closed", "adapter_error", "adapter_error"],
        0,
    )


@pytest.mark.parametrize(("name", "reason"), [("Careless", "adapter_error"), ("Dirty", "nul_character")])
def test_what_an_adapter_says_is_judged_as_everything_is(name: str, reason: str) -> None:
    assert fates(f"{HERE}:{name}", "x") == ([], [reason], 0)


def test_an_adapters_words_do_not_show_what_the_record_holds() -> None:
    gathered = builder(f"{HERE}:Talkative")
    gathered.add({"card": CANARY}, position="1")

    (rejection,) = gathered.build({}).rejections

    assert CANARY not in rejection.message
    assert rejection.message.startswith("the adapter failed: ValueError at test_adapter.py:")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("os:system", "not allowed here"),
        ("tests.unitary:X", "not allowed here"),
        ("tests.unit.nothing:X", "cannot be used: ModuleNotFoundError"),
        (f"{HERE}:Nothing", "cannot be used: AttributeError"),
        (f"{HERE}:Unmade", "cannot be used: TypeError"),
        (f"{HERE}:NoAdapter", "no method `facts`"),
        (f"{HERE}:fates", "is no class"),
        ("acme", "there is no adapter"),
    ],
)
def test_an_adapter_that_cannot_be_used_pauses_the_connector_with_the_reason(name: str, words: str) -> None:
    with pytest.raises(SourceMisconfigured, match=words):
        builder(name)


def test_a_worker_allows_no_module_of_itself() -> None:
    with pytest.raises(SourceMisconfigured, match="not allowed here"):
        Adapters().make(f"{HERE}:Bank")


def test_a_package_offers_an_adapter_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        adapter,
        "entry_points",
        lambda group: [EntryPoint("acme", f"{HERE}:Bank", group)] if group == adapter.ENTRY_POINTS else [],
    )

    assert fates("acme", "C|r-1|100") == (["r-1"], [], 0)
