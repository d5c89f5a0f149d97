"""What holds for every test."""

import pytest

from llmcourse import runtime


@pytest.fixture(autouse=True)
def scale_of_the_laptop():
    """`set_up` remembers the scale; a test that chose another must not leave it to the next."""
    yield
    runtime._scale = "laptop"
