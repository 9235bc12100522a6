"""Templates of connectors: each can be, once its placeholders are filled in; none of them holds a secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema_rs import Draft202012Validator

from connectors.registry import specs
from connectors.secret import REFERENCE, names_secret
from schemas.errors import NotFound
from tillstream.control import template
from tillstream.control.connector import judged
from tillstream.control.dialect import PATTERNS
from tillstream.control.template import Template

ROOT = Path(__file__).parents[3]
ALL = list(template.templates().values())


def whole(each: Template) -> dict[str, Any]:
    return each.filled({asked.field: asked.example for asked in each.placeholders})


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.name)
def test_with_its_placeholders_filled_in_it_is_what_its_source_takes(each: Template):
    spec = specs()[each.kind]

    Draft202012Validator(spec.config.model_json_schema()).validate(whole(each))

    assert judged(spec, whole(each), name=each.name, provider=each.provider or each.name)[1] == []


@pytest.mark.parametrize("each", ALL, ids=lambda each: each.name)
def test_its_placeholders_are_options_that_it_does_not_give_and_secrets_are_references(each: Template):
    fields = specs()[each.kind].config.model_fields

    asked = {one.field: one.example for one in each.placeholders}

    assert len(asked) == len(each.placeholders)
    assert asked.keys() <= fields.keys()
    assert asked.keys().isdisjoint(each.configuration)
    secrets = [value for option, value in whole(each).items() if names_secret(fields[option])]
    assert all(REFERENCE.fullmatch(value) for value in secrets), secrets
    assert all(one.description.endswith(".") for one in each.placeholders)
    assert each.summary.endswith(".")


def test_there_is_one_for_each_kind_of_source_and_every_provider_of_the_seeds():
    assert {each.kind for each in ALL} == specs().keys()
    assert {each.provider for each in ALL} >= {*PATTERNS, "SABPAISA", "razorpay"}


def test_what_a_bank_calls_its_files_is_as_the_seeds_routes_have_it():
    named = {each.provider: each.configuration["pattern"] for each in ALL if each.provider in PATTERNS}

    assert named == PATTERNS


def test_axis_is_read_as_the_sample_of_it_is():
    sample = yaml.safe_load((ROOT / "samples/sftp/axis/connector.yaml").read_text("utf-8"))["configuration"]
    own = {"host", "username", "password", "host_key"}

    given = template.find("axis-sftp").configuration

    assert {key: given[key] for key in sample.keys() - own} == {key: sample[key] for key in sample.keys() - own}


def test_a_template_is_json_and_a_name_that_is_none_tells_those_there_are():
    assert json.loads(json.dumps([dict(each.configuration) for each in ALL]))
    with pytest.raises(NotFound) as raised:
        template.find("carrier-pigeon")
    assert "razorpay" in raised.value.hint
