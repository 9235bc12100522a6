"""Tests of the tests: `make mutants` breaks the delivery path one line at a time and expects the tests to notice."""
