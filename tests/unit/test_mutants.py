"""Mutants are not tried here, which takes minutes: `make mutants` does. They only have to fit the tree as it is."""

from __future__ import annotations

import pytest

from tests.mutants.__main__ import ROOT, problem_of
from tests.mutants.table import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_applies_to_the_tree_exactly_once_and_its_tests_exist(mutant: Mutant) -> None:
    assert problem_of(mutant, ROOT) == ""
    assert mutant.old != mutant.new
