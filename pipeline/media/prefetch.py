"""Reading ahead in a thread, so that a decoder need not wait while its last batch is worked on.

Tested by tests/pipeline/media/test_prefetch.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def ahead(items: Iterable[Item], end: Callable[[], None]) -> Iterator[Iterator[Item]]:
    """Iterate over `items` with the next one read meanwhile: one more item is in memory.

    `end` makes a reading that waits come to its end; it is called on leaving. What reading raises is raised where
    the item would have been.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, "ahead") as reader:

        def each() -> Iterator[Item]:
            waiting = reader.submit(next, source, None)
            while (item := waiting.result()) is not None:
                waiting = reader.submit(next, source, None)
                yield item

        try:
            yield each()
        finally:
            end()
