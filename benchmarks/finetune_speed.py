"""A step of fine-tuning in two passes against a straight loop that keeps all activations: rows/s and peak memory.

    python benchmarks/finetune_speed.py [--device cpu] [--windows 2] [--rows 300] [--micro 64,128] [--released 1,3]
                                        [--visual suzhang40] [--audio vgg] [--precision fp32,bf16] [--rounds 1]

The trainer's own step (views, backbones, S1's head, loss, both ways back, Adam) on random crops and spectrograms, with
networks of random numbers at their full size. The straight loop is the same step with all rows through each network at
once; of its frozen layers autograd keeps nothing either. Faces are cut to their middle, so that both losses are equal.

A growth of memory is what a step adds to what there is before it: parameters, their gradients, Adam's state and the
batch. The `sum` beside it is what two passes may add: what Adam's step takes for itself, one micro-batch, each measured
alone, and what the frozen layers gave for the other rows, kept from the first pass for the second.

On the CPU each line is a process of its own, and memory is resident; on a GPU it is what torch has allocated, after a
step that is not counted. Rows/s of a process's own seconds on its cores count where the machine has other work to do.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch

from avfuse.encoders.contract import Precision
from avfuse.encoders.table import CROP_PX
from avfuse.encoders.weights.resolve import WeightSource
from avfuse.features_store.clock import LOGMEL_RATE_HZ, PATCH_FRAMES
from avfuse.fusion.artifacts.folder import Description, Features
from avfuse.fusion.config import FinetuneConfig, RunConfig
from avfuse.fusion.data.batches import Batch
from avfuse.fusion.data.runtime import autocast, deterministic
from avfuse.fusion.data.views import PatchTable, take_rows
from avfuse.fusion.finetuning.backbones import Backbone
from avfuse.fusion.finetuning.learner import TunedLearner, init_tuned, open_backbones
from avfuse.fusion.finetuning.two_pass import TwoPass
from avfuse.fusion.folds.manifest import Fold
from avfuse.fusion.settings import preset

EPOCH_WINDOWS = 8410  # of Aff-Wild2's official split, 300 rows every 200
ROW_RATE_HZ = 30
MEL_BANDS = 64
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """A line of the table. `micro`: rows at once, 0 in the straight loop; `alone`: one micro-batch without the step."""

    device: str
    visual: str
    audio: str
    precision: Precision
    windows: int
    rows: int
    released: int
    micro: int
    rounds: int
    alone: bool = False


@dataclass(frozen=True)
class Found:
    """Seconds of the clock and of the process of one step, and MiB: its growth, that of Adam's, and what is kept."""

    seconds: float
    cpu_seconds: float
    growth_mib: float
    adam_growth_mib: float
    kept_mib: float
    parameters_mib: float
    optimiser_mib: float
    loss: float


class Straight(TunedLearner):
    """All rows through each network at once, and one way back through head and networks."""

    def see(self, batch: Batch) -> tuple[Batch, Callable[[], object]]:
        """The batch with the backbones' rows, of which autograd keeps what it needs."""
        features, every = list(batch.features), torch.arange(batch.mask.numel(), device=self.device)
        for modality, backbone in self.backbones.items():
            with autocast(self.device, self.run.precision):
                rows = backbone.network(backbone.inputs(take_rows(batch.views[modality], every)))
            features[self.config.modalities.index(modality)] = rows.float().view(*batch.mask.shape, backbone.dim)
        return replace(batch, features=tuple(features), views={}), tuple


@functools.cache
def learner_of(device: str, visual: str, audio: str) -> TunedLearner:
    """S1's head beside the networks, drawn from seed 0."""
    tuning = FinetuneConfig(visual=visual, audio=audio, flip=False, crop=False)
    config = replace(preset("su-zhang"), modalities=tuple(tuning.networks), finetune=tuning)
    place = torch.device(device)
    sources = {name: WeightSource(name, "untrained 0", None, None, "", 0) for name in tuning.networks}
    backbones = open_backbones(config, sources, place)
    described = Description(config, Fold(0, ("one",), ("other",)), {}, Features("", {}, (), {}), "", "")
    shapes = [(each.dim,) for each in backbones.values()]
    return init_tuned(config, RunConfig(device), shapes, place, described=described, backbones=backbones)


@functools.cache
def drawn(device: str, backbones: tuple[tuple[str, str], ...], windows: int, rows: int) -> Batch:
    """Random views and labels of windows without padding; `backbones`: modality and view."""
    rng = np.random.default_rng(0)
    views: dict[str, torch.Tensor | PatchTable] = {}
    place = torch.device(device)
    for modality, view in backbones:
        if view == "logmel":
            starts = np.rint(np.arange(rows) / ROW_RATE_HZ * LOGMEL_RATE_HZ).astype(np.int64)
            length = int(starts[-1]) + PATCH_FRAMES
            frames = rng.standard_normal((windows * length, MEL_BANDS), np.float32)
            firsts = np.arange(windows)[:, None] * length + starts
            views[modality] = PatchTable(torch.from_numpy(frames), torch.from_numpy(firsts)).to(place)
        else:
            px = int(view.removeprefix("crop"))
            assert px <= CROP_PX
            views[modality] = torch.from_numpy(rng.integers(0, 256, (windows, rows, px, px, 3), np.uint8)).to(place)
    flags = torch.ones(windows, rows, dtype=torch.bool, device=place)
    labels = torch.from_numpy(rng.uniform(-1, 1, (windows, rows, 2)).astype(np.float32)).to(place)
    index = torch.arange(windows * rows, device=place).view(windows, rows)
    ones = tuple(torch.ones(windows, rows, 1, device=place) for _ in backbones)
    return Batch(ones, tuple(flags for _ in backbones), flags, labels, flags, index, views)


def kept_bytes(backbone: Backbone, view: torch.Tensor | PatchTable, case: Case) -> float:
    """What the first pass keeps of a row for the second."""
    prefix, _ = backbone.split(min(case.released, len(backbone.groups)))
    pair = torch.arange(2, device=torch.device(case.device))
    with torch.no_grad(), autocast(pair.device, case.precision):
        inputs = backbone.inputs(take_rows(view, pair))
        shared = prefix(inputs)
    return 0.0 if shared is inputs else shared.nbytes / len(pair)


def one_micro_batch(learner: TunedLearner, batch: Batch, micro: int) -> None:
    """Both passes of one micro-batch through each network, without head and optimiser."""
    for modality, backbone in learner.backbones.items():

        def take(begin: int, end: int, view: torch.Tensor | PatchTable = batch.views[modality]) -> torch.Tensor:
            return take_rows(view, torch.arange(begin, end, device=learner.device))

        released = min(learner.released, len(backbone.groups))
        passes = TwoPass(backbone, released, take, micro, micro, learner.run.precision, learner.device)
        passes.carry_on(torch.ones_like(passes.rows()))


def begin_memory(device: str) -> float:
    """MiB in use; the peak is counted from here on."""
    if device != "cpu":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / MIB
    Path("/proc/self/clear_refs").write_text("5")
    return _status_mib("VmRSS")


def peak_memory(device: str) -> float:
    """Peak of the MiB in use since then."""
    return _status_mib("VmHWM") if device == "cpu" else torch.cuda.max_memory_allocated() / MIB


def _status_mib(key: str) -> float:
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith(key))
    return int(line.split()[1]) / 1024


@deterministic()
def measure(case: Case) -> Found:
    """Take the steps of a line, in this process."""
    built = learner_of(case.device, case.visual, case.audio)
    run = RunConfig(case.device, case.precision, micro_batch_rows=case.micro or 1)
    kind = TunedLearner if case.micro else Straight
    learner = kind(**{each.name: getattr(built, each.name) for each in fields(TunedLearner)} | {"run": run})
    learner.release(case.released, 0)
    learner.model.train()
    backbones = tuple((name, each.view) for name, each in learner.backbones.items())
    batch = drawn(case.device, backbones, case.windows, case.rows)
    moving = learner.parameters()
    for parameter in moving:  # so that gradients and Adam's state are there before
        parameter.grad = torch.zeros_like(parameter)
    learner.optimizer.step()
    before_mib = begin_memory(case.device)
    learner.optimizer.step()
    adam_growth_mib = peak_memory(case.device) - before_mib
    kept = sum(kept_bytes(each, batch.views[name], case) for name, each in learner.backbones.items())
    every = [
        *learner.model.parameters(),
        *(p for each in learner.backbones.values() for p in each.network.parameters()),
    ]

    def take_step() -> float:
        torch.manual_seed(0)  # the head's dropout
        if case.alone:
            one_micro_batch(learner, batch, case.micro)
            return 0.0
        return float(learner.step(batch))  # waits for the device

    if case.device != "cpu":
        take_step()
    before_mib = begin_memory(case.device)
    clock, busy, loss = [], [], 0.0
    for _ in range(case.rounds):
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        loss = take_step()
        if case.device != "cpu":
            torch.cuda.synchronize()
        clock.append(time.perf_counter() - began_s)
        busy.append(time.process_time() - began_cpu_s)
    growth_mib = peak_memory(case.device) - before_mib
    for parameter in moving:
        parameter.grad = None
    return Found(
        seconds=statistics.median(clock),
        cpu_seconds=statistics.median(busy),
        growth_mib=growth_mib,
        adam_growth_mib=adam_growth_mib,
        kept_mib=kept * case.windows * case.rows / MIB if case.micro else 0.0,
        parameters_mib=sum(each.nbytes for each in every) / MIB,
        optimiser_mib=3 * sum(each.nbytes for each in moving) / MIB,
        loss=loss,
    )


def measured(case: Case) -> Found | None:
    """`measure`, on the CPU in a process of its own; None where the memory of a GPU is too small."""
    if case.device == "cpu":
        command = [sys.executable, __file__, "--only", json.dumps(asdict(case))]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return Found(**json.loads(out))
    try:
        return measure(case)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None


def print_lines(base: Case, micros: Sequence[int]) -> None:
    """The straight loop, then two passes with each size of the micro-batch."""
    straight = measured(replace(base, micro=0))
    if straight is not None:
        print(
            f"{base.precision}, {base.windows} windows of {base.rows} rows, groups released: {base.released}; "
            f"parameters {straight.parameters_mib:.0f} MiB, "
            f"gradients and Adam's state {straight.optimiser_mib:.0f} MiB, its step {straight.adam_growth_mib:.0f} MiB"
        )
    print(f"  {'':16}   rows/s  of CPU s  to the loop  growth MiB   sum MiB  kept MiB      loss  epoch")
    total = base.windows * base.rows
    for micro in (0, *micros):
        found = measured(replace(base, micro=micro)) if micro else straight
        name = f"two passes, {micro}" if micro else "straight loop"
        if found is None:
            print(f"  {name:16}  does not fit into the memory", flush=True)
            continue
        allowed = "–"
        if 0 < micro < total:
            alone = measured(replace(base, micro=micro, rounds=1, alone=True))
            assert alone is not None
            allowed = f"{found.adam_growth_mib + alone.growth_mib + found.kept_mib * (1 - micro / total):.0f}"
        hours = EPOCH_WINDOWS * base.rows / total * found.seconds / 3600
        epoch = f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min"
        # On a GPU the clock's seconds alone say something.
        ratio = "–"
        if straight is not None:
            own, other = ((each.cpu_seconds if base.device == "cpu" else each.seconds) for each in (found, straight))
            ratio = f"{other / own:.2f}"
        print(
            f"  {name:16} {total / found.seconds:8.2f}  {total / found.cpu_seconds:8.2f}  {ratio:>11}"
            f"  {found.growth_mib:10.0f}  {allowed:>8}  {found.kept_mib:8.0f}  {found.loss:8.5f}  {epoch}",
            flush=True,
        )


def main() -> None:
    """Every precision, number of windows and number of released groups."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--visual", default="suzhang40")
    parser.add_argument("--audio", default="vgg")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--windows", default="2")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--micro", default="64,128")
    parser.add_argument("--released", default="1,3")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.only:
        print(json.dumps(asdict(measure(Case(**json.loads(words.only))))))
        return
    device_name = f"CPU, {torch.get_num_threads()} threads" if words.device == "cpu" else torch.cuda.get_device_name()
    print(f"{device_name}; torch {torch.__version__}; {words.visual} and {words.audio}; {time.strftime('%Y-%m-%d')}")
    micros = [int(each) for each in words.micro.split(",")]
    began_s = time.perf_counter()
    for precision in words.precision.split(","):
        for windows in words.windows.split(","):
            for released in words.released.split(","):
                case = Case(
                    device=words.device,
                    visual=words.visual,
                    audio=words.audio,
                    precision=precision,
                    windows=int(windows),
                    rows=words.rows,
                    released=int(released),
                    micro=0,
                    rounds=words.rounds,
                )
                print_lines(case, micros)
    print(f"{time.perf_counter() - began_s:.0f} s in all")


if __name__ == "__main__":
    main()
