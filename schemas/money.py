"""
Money: integer minor units plus an asset. No float touches an amount, and nothing is ever rounded.

An asset is an ISO 4217 code (`USD`), or a code with an explicit exponent (`USD/2`), kept verbatim:
two spellings are two assets, because nothing here may guess that they are one.
Exponents: ISO 4217 list one, 2026 (only the codes that differ from 2 are listed; source: the standard's table A.1).
"""

from __future__ import annotations

import re

from schemas.errors import RecordRejected

MAX_MINOR = 10**16 - 1  # ninety-nine trillion at exponent 2; sums of hundreds of them still fit a bigint
DEFAULT_EXPONENT = 2
_MAX_EXPONENT = 6

EXPONENTS: dict[str, int] = {
    **dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    **dict.fromkeys("CLF UYW".split(), 4),
}
_TWO_DECIMALS = frozenset(
    """AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW
    CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS
    INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN
    NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC
    SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG""".split()
)

_ASSET = re.compile(r"([A-Z]{3})(?:/([0-9]))?", re.ASCII)
_DECIMAL = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?", re.ASCII)
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)", re.ASCII)


def exponent(asset: str) -> int:
    """
    How many decimals the asset's minor unit has.

    Raises:
        RecordRejected: `unknown_asset`.
    """
    match = _ASSET.fullmatch(asset)
    if match:
        code, explicit = match.groups()
        if explicit is not None and int(explicit) <= _MAX_EXPONENT:
            return int(explicit)
        if explicit is None and (code in EXPONENTS or code in _TWO_DECIMALS):
            return EXPONENTS.get(code, DEFAULT_EXPONENT)
    raise RecordRejected("unknown_asset", f"{asset[:32]!r} is neither an ISO 4217 code in capitals nor CODE/exponent")


def parse_minor(text: str) -> int:
    """
    The integer of minor units that `text` spells: `-?digits`, no sign but minus, no leading zeros, no separators.

    Raises:
        RecordRejected: `invalid_amount`.
    """
    if not _INTEGER.fullmatch(text):
        raise RecordRejected("invalid_amount", f"{text[:48]!r} is not a whole number of minor units")
    return bounded(int(text) if len(text) < 20 else MAX_MINOR + 1)


def parse_major(text: str, asset: str) -> int:
    """
    Minor units of a decimal such as `-1234.50` in `asset`. More decimals than the asset has are refused, not rounded.

    Raises:
        RecordRejected: `invalid_amount`, `too_many_decimals`, `unknown_asset`.
    """
    match = _DECIMAL.fullmatch(text)
    if not match or len(text) > 40:
        raise RecordRejected("invalid_amount", f"{text[:48]!r} is not a plain decimal number")
    sign, whole, fraction = match.group(1), match.group(2), match.group(3) or ""
    decimals = exponent(asset)
    if len(fraction.rstrip("0")) > decimals:
        raise RecordRejected("too_many_decimals", f"{text[:48]!r} has more decimals than {asset} has ({decimals})")
    return bounded(int(sign + whole + fraction[:decimals].ljust(decimals, "0")))


def bounded(minor: int) -> int:
    """
    `minor` itself, if its magnitude is one we store.

    Raises:
        RecordRejected: `amount_out_of_range`.
    """
    if -MAX_MINOR <= minor <= MAX_MINOR:
        return minor
    raise RecordRejected("amount_out_of_range", f"an amount has more than {len(str(MAX_MINOR))} digits")


def format_major(minor: int, asset: str) -> str:
    """The decimal a person reads: `10050` of `USD` is `100.50`. An asset we do not know is shown in minor units."""
    try:
        decimals = exponent(asset)
    except RecordRejected:
        decimals = 0
    digits = str(abs(minor)).rjust(decimals + 1, "0")
    text = digits if decimals == 0 else f"{digits[:-decimals]}.{digits[-decimals:]}"
    return f"-{text}" if minor < 0 else text
