"""The GPU that these tests need."""

import os

import pytest
import torch


@pytest.fixture(scope="session")
def gpu() -> torch.device:
    """The first GPU."""
    if not torch.cuda.is_available():
        reason = "torch sees no GPU"
        if "gpu" in os.environ.get("AVFUSE_REQUIRE", "").split(","):
            pytest.fail(f"{reason}, and AVFUSE_REQUIRE asks for one")
        pytest.skip(reason)
    return torch.device("cuda:0")
