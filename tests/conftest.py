"""What holds for every test."""

import pytest

from llmcourse import runtime


@pytest.fixture(autouse=True)
def scale_of_the_laptop():
    """`set_up` remembers the scale; a test that chose another must not leave it to the next."""
    yield
    runtime._scale = "laptop"


def pytest_collection_modifyitems(items):
    """The longest file first: it stays with one worker, and at the end the other would wait for it."""
    items.sort(key=lambda item: item.path.name != "test_mutation.py")
