"""The one chooser behind every --device."""

import pytest
import torch

from avfuse.encoders.devices import choose_device, refuse_precision


@pytest.fixture
def gpus(monkeypatch):
    def see(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    see(0)
    return see


def test_without_a_gpu(gpus):
    assert choose_device("cpu") == choose_device("auto") == torch.device("cpu")
    for name in ("cuda", "cuda:0"):
        with pytest.raises(ValueError, match=rf"no {name}: .* sees 0 GPUs; try --device cpu"):
            choose_device(name)


def test_a_gpu_has_its_number(gpus):
    gpus(2)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda", 0)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ValueError, match=r"no cuda:2: .* sees 2 GPUs"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cuda1", "cpu:0", "", ":1"])
def test_other_names(gpus, name):
    gpus(2)
    with pytest.raises(ValueError, match=f"--device is auto, cpu, cuda or cuda:N, got '{name}'"):
        choose_device(name)


def test_fp16_needs_a_gpu():
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        refuse_precision(torch.device("cpu"), "fp16")
    refuse_precision(torch.device("cuda", 0), "fp16")
    refuse_precision(torch.device("cpu"), "bf16")
