"""Batches of several videos through shared networks: rows in order, the same whatever else runs."""

import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest
import torch

from avfuse.encoders.embed import Embedder
from avfuse.encoders.engine import (
    BatchingEngine,
    CpuEngine,
    DynamicBatcher,
    choose_device,
    make_engine,
    whole_float32,
)
from avfuse.encoders.weights.read import Network

CPU = torch.device("cpu")


class Doubler:
    """Rows are twice the inputs' first number; notes the size of every batch."""

    def __init__(self, batch_size: int, pause_s: float = 0.0) -> None:
        self.batch_size, self.pause_s = batch_size, pause_s
        self.sizes: list[int] = []

    def rows(self, batch):
        self.sizes.append(len(batch))
        time.sleep(self.pause_s)
        if (batch < 0).any():
            raise RuntimeError("a negative input")
        return (2 * batch[:, :1]).astype(np.float32)


def values(futures) -> list[float]:
    return [float(value) for future in futures for value in future.result()[:, 0]]


def inputs(first: int, count: int):
    return np.arange(first, first + count, dtype=np.float32)[:, None]


@pytest.mark.parametrize("threads", [1, 3])
def test_cpu_batches_are_of_one_request_and_rows_in_order(threads):
    network = Doubler(4)
    engine = CpuEngine({"face": network}, threads)
    futures = [engine.submit("face", inputs(first, 6)) for first in (0, 100)]
    assert [values(each) for each in futures] == [list(range(0, 12, 2)), list(range(200, 212, 2))]
    assert sorted(network.sizes) == [2, 2, 4, 4]
    engine.close()


def test_cpu_threads_have_one_thread_of_torch_each():
    class Asking(Doubler):
        def rows(self, batch):
            return np.full((len(batch), 1), torch.get_num_threads(), np.float32)

    engine = make_engine({"face": Asking(4)}, CPU, 2)
    assert values(engine.submit("face", inputs(0, 8))) == [1.0] * 8
    engine.close()


def test_batches_are_filled_across_requests_and_always_full():
    network = Doubler(8, pause_s=0.02)
    engine = BatchingEngine({"face": network, "twin": network}, CPU)
    futures = [engine.submit(name, inputs(10 * each, 3)) for each, name in enumerate(["face", "twin"] * 8)]
    for each, asked in enumerate(futures):
        assert values(asked) == [20 * each, 20 * each + 2, 20 * each + 4]
    assert set(network.sizes) == {8}
    assert len(network.sizes) < len(futures)
    engine.close()


def test_many_threads_fill_one_network():
    network = Doubler(16)
    batcher = DynamicBatcher(network, CPU)
    answers: dict[int, list[float]] = {}

    def video(number: int) -> None:
        answers[number] = [
            value for first in range(20) for value in values(batcher.submit(inputs(number, 1 + first % 5)))
        ]

    threads = [threading.Thread(target=video, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == {
        number: [2.0 * (number + at) for first in range(20) for at in range(1 + first % 5)] for number in range(6)
    }
    batcher.close()


def test_who_asked_gets_the_error_of_a_batch():
    batcher = DynamicBatcher(Doubler(4), CPU)
    (future,) = batcher.submit(inputs(-3, 2))
    with pytest.raises(RuntimeError, match="a negative input"):
        future.result(10)
    assert values(batcher.submit(inputs(5, 1))) == [10.0]
    batcher.close()


def test_closing_drops_what_has_not_begun():
    engine = CpuEngine({"face": Doubler(1, pause_s=0.2)}, 1)
    futures = engine.submit("face", inputs(0, 50))
    engine.close()
    with pytest.raises(CancelledError):
        futures[-1].result(10)


@pytest.fixture
def gpus(monkeypatch):
    def see(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    see(0)
    return see


def test_a_device_without_a_gpu(gpus):
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
def test_names_of_no_device(gpus, name):
    gpus(2)
    with pytest.raises(ValueError, match=f"--device is auto, cpu, cuda or cuda:N, got '{name}'"):
        choose_device(name)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_float32_is_whole_for_every_thread_until_the_end(precision):
    """The switch is the process's: a call that ends leaves it as it is for those that go on."""
    seen = []

    class Watching:
        batch_size = 4

        def rows(self, batch):
            seen.append(torch.backends.cudnn.allow_tf32)
            return batch

    before = torch.backends.cudnn.allow_tf32
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(96 * 64, 2))
    embedder = Embedder(Network(network.eval(), None, 2), "cpu")
    with whole_float32(precision):
        engine = BatchingEngine({"one": Watching(), "two": embedder}, torch.device("cpu"))
        for _ in range(3):
            patches = np.zeros((4, 96, 64), np.float32)
            for future in [*engine.submit("two", patches), *engine.submit("one", patches)]:
                future.result()
        engine.close()
    assert seen == [precision != "fp32"] * 3
    assert torch.backends.cudnn.allow_tf32 == before
