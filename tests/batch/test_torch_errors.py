"""What torch raises is one line that says what to do, whatever command it ends."""

import click
import pytest
import torch

from avfuse.batch.protocols import WorkerUnfit
from avfuse.batch.torch_errors import ComputeError, compute_error, torch_errors

BUSY = (
    "CUDA error: CUDA-capable device(s) is/are busy or unavailable\nSearch for `cudaErrorDevicesUnavailable' in …\n"
    "CUDA kernel errors might be asynchronously reported at some other API call\n"
)
FULL = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB of which 8.00 MiB is free"
)


class TestMeaning:
    @pytest.mark.parametrize(
        ("error", "meaning", "is_transient"),
        [
            (torch.OutOfMemoryError(FULL), "do not fit into memory: try less (CUDA out of memory. Tried", True),
            (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), "fit into memory", True),
            (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`"), "into memory", True),
            (MemoryError(), "do not fit into memory: try less (MemoryError)", True),
            (RuntimeError(BUSY), "the GPU is held by another job: wait for it, or name another one by", True),
            (RuntimeError("Found no NVIDIA driver on your system. Please check"), "use --device cpu (Found", False),
            (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "cpu (CUDA", False),
            (RuntimeError("\n\nCUDA error: an illegal memory access\nmore"), "RuntimeError: CUDA error: an ill", False),
            (RuntimeError(), "RuntimeError: RuntimeError", False),
        ],
        ids=["gpu", "cpu", "cublas", "python", "busy", "driver", "kernels", "other", "silent"],
    )
    def test_in_one_line(self, error, meaning, is_transient):
        found = compute_error(error, "less")
        assert meaning in str(found)
        assert found.is_transient is is_transient
        assert "\n" not in str(found)
        assert len(str(found)) < 500

    def test_a_compiler_that_is_missing_and_one_that_fails(self):
        missing = RuntimeError(
            "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx: ()"
        )
        assert str(compute_error(missing, "")).startswith("--compile needs a C++ compiler: install g++, or leave out")
        failed = type("InductorError", (RuntimeError,), {"__module__": "torch._inductor.exc"})(
            "CppCompileError: disk full\n1"
        )
        meaning = "the network cannot be compiled on this machine: leave out --compile (CppCompileError: disk full)"
        assert str(compute_error(failed, "")) == meaning


class TestTurning:
    def test_torch_itself(self):
        """The real thing, out of memory and of the wrong shape."""
        with pytest.raises(ComputeError, match="do not fit into memory: try less"), torch_errors("less"):
            torch.empty(1 << 60)
        with pytest.raises(ComputeError, match="RuntimeError: mat1 and mat2 shapes cannot be multiplied"):
            torch_errors("less")(torch.mm)(torch.zeros(2, 3), torch.zeros(2, 3))

    @pytest.mark.parametrize(
        "error", [WorkerUnfit("away"), click.exceptions.Exit(0), ValueError("odd"), OSError(5, "x")]
    )
    def test_what_has_words_of_its_own_is_left(self, error):
        with pytest.raises(type(error)) as caught, torch_errors("less"):
            raise error
        assert caught.value is error
