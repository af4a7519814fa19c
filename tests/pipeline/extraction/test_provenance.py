"""What a trial says of its video's clock."""

import numpy as np
import pytest

from avfuse.pipeline.extraction.provenance import is_vfr


@pytest.mark.parametrize(
    ("times", "vfr"),
    [
        (np.arange(90) / 25, False),
        (np.arange(90) * 1001 / 30000, False),
        (np.round(np.arange(90) / 30, 3), False),  # a container that counts in ms
        (np.delete(np.arange(90) / 25, 40), True),
        (np.zeros(1), False),
    ],
)
def test_vfr_is_more_than_rounding(times, vfr):
    assert is_vfr(times) is vfr
