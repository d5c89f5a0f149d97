"""The same results with more speed: read last, the core runs without it.

>>> from llmcourse import fast
>>> with fast.disabled():
...     fast.enabled
False
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

enabled = True  # switched by `disabled`
compile_decoders = True  # False leaves decoding to torch where numba is installed, too


@contextmanager
def disabled() -> Iterator[None]:
    """Let the core compute everything itself: attention, cross-entropy and decoding the plain way."""
    global enabled
    before, enabled = enabled, False
    try:
        yield
    finally:
        enabled = before


def compiled_for(model, n_rows: int):
    """Return the module `fast.compiled` if it can decode `n_rows` tokens of the model at once, else None.

    It is None without numba, which takes half a second to import, so only here.
    """
    with suppress(ImportError):
        from llmcourse.fast import compiled

        if compile_decoders and compiled.serves(model, n_rows):
            return compiled
