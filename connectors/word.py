"""What a type of a configuration's field is called in documents, where its validator cannot say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Called:
    """Put it into an `Annotated`: `Annotated[str, AfterValidator(...), Called("an address range")]`."""

    words: str
