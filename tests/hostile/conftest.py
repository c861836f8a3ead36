"""Good inputs of every script, of which the tests of this folder spoil one."""

import pytest

from tests.support.hostile import Inputs, good_inputs


@pytest.fixture(scope="module")
def good(narrow: None, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return good_inputs(tmp_path_factory.mktemp("good"))
