"""
What is known of a provider, filled in: `template: razorpay` stands for its addresses, pages and words.

What a configuration says itself comes before the template's. Its `resources` are whole ones, or name those of the
template: a name alone, or an object with that name and what is different.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import yaml

_FOLDER = resources.files("connectors.http") / "templates"
_SUFFIX = ".yaml"

# options as they stand in a configuration, before they are validated
Options = Mapping[str, Any]


def names() -> list[str]:
    """Every template there is."""
    return sorted(entry.name.removesuffix(_SUFFIX) for entry in _FOLDER.iterdir() if entry.name.endswith(_SUFFIX))


def filled(given: Options) -> dict[str, Any]:
    """
    The options with the template's in place of those that are not given.

    Raises:
        ValueError: there is no such template, or it has no such resource.
    """
    name = given.get("template") or _by_address(given)
    if not name:
        return dict(given)
    if name not in names():
        raise ValueError(f"there is no template {name!r}; there are {', '.join(names())}")
    template = _load(name)
    merged = {**template, **given, "template": name}
    merged["resources"] = _resources(given.get("resources"), template["resources"])
    return merged


def _by_address(given: Options) -> str:
    """The template of a configuration that names no resource, by the provider's host: seed 003's has nothing else."""
    address = given.get("api_base_url")
    if given.get("resources") or not isinstance(address, str):
        return ""
    host = _host(address)
    return next((name for name in names() if host and host == _host(_load(name)["api_base_url"])), "")


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _resources(given: Any, known: list[dict[str, Any]]) -> Any:
    if not given or not isinstance(given, list | tuple):
        return given or known
    by_name = {resource["name"]: resource for resource in known}
    return [_resource(item, by_name) for item in given]


def _resource(item: Any, known: Mapping[str, dict[str, Any]]) -> Any:
    if isinstance(item, str):
        if item not in known:
            raise ValueError(f"the template has no resource {item!r}; it has {', '.join(known)}")
        return known[item]
    if isinstance(item, Mapping) and item.get("name") in known:
        return {**known[item["name"]], **item}
    return item


@functools.cache
def _load(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((_FOLDER / f"{name}{_SUFFIX}").read_text("utf-8")))
