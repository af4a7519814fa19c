"""Reading ahead: order, errors, and an early end."""

import threading
from contextlib import closing

import pytest

from avfuse.pipeline.media.readers import prefetch


def test_items_come_in_order_and_the_next_is_read_meanwhile():
    second = threading.Event()

    def items():
        yield 1
        second.set()
        yield 2

    with closing(prefetch(items(), lambda: None)) as ready:
        assert next(ready) == 1
        assert second.wait(10)
        assert list(ready) == [2]


def test_what_reading_raises_comes_after_the_items_before_it():
    def items():
        yield 1
        raise ValueError("cut off")

    with closing(prefetch(items(), lambda: None)) as ready:
        assert next(ready) == 1
        with pytest.raises(ValueError, match="cut off"):
            next(ready)


def test_an_early_end_ends_a_read_that_waits():
    more = threading.Event()

    def items():
        yield 1
        more.wait(60)

    with closing(prefetch(items(), more.set)) as ready:
        assert next(ready) == 1
    assert more.is_set()
