"""Training speed of every head on the same windows, and of MFN and MCTN against a straight loop over frames.

    python benchmarks/heads_speed.py [--windows 12] [--frames 300] [--repeat 3] [--heads mfn,mctn] [--cpu-time]

A step of the trainer (network, loss, way back, optimiser) on one batch that is in memory, the heads of the table in
turns in one process. naive_recurrence.py has the loops, one `LSTMCell` a modality; they take the same batch, of which
MCTN's only `--few` windows, since its loop keeps some gigabytes a window; ours is timed on as many beside it.
`--cpu-time` counts the process's seconds on its cores in place of the clock's: on one thread the same where nothing
else runs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from measure import machine
from naive_recurrence import NaiveMCTN, NaiveMFN
from torch import nn

from avfuse.fusion.config import RunConfig
from avfuse.fusion.data.batches import Batch
from avfuse.fusion.models.table import HEADS
from avfuse.fusion.settings import preset
from avfuse.fusion.training.learner import Learner, init_learner

WIDTHS = (512, 128, 128)


def drawn(windows: int, frames: int, outputs: int, device: torch.device) -> Batch:
    """Random windows without padding."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn((windows, frames, width), generator=generator).to(device) for width in WIDTHS]
    flags = torch.ones((windows, frames), dtype=torch.bool, device=device)
    labels = torch.rand((windows, frames, outputs), generator=generator).to(device)
    index = torch.arange(windows * frames, device=device).view(windows, frames)
    return Batch(tuple(rows), tuple(flags for _ in rows), flags, labels, flags, index)


def few(batch: Batch, windows: int) -> Batch:
    """The first windows of a batch."""
    return Batch(
        tuple(rows[:windows] for rows in batch.features),
        tuple(flags[:windows] for flags in batch.valid),
        batch.mask[:windows],
        batch.labels[:windows],
        batch.loss_mask[:windows],
        batch.index[:windows],
    )


def straight(learner: Learner, make: Callable[..., nn.Module]) -> Learner:
    """The same learner with the loop as its network."""
    torch.manual_seed(0)
    model = make(learner.config.model, [(width,) for width in WIDTHS], 2).to(learner.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=learner.config.lr, weight_decay=learner.config.weight_decay)
    return replace(learner, model=model, network=model, optimizer=optimizer)


def timed(ways: dict[str, tuple[Learner, Batch]], repeat: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Windows/s of a step, in turns, after one that is not counted."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeat + 1):
        for name, (learner, batch) in ways.items():
            learner.model.train()
            began_s = clock()
            float(learner.step(batch))  # waits for the device
            if turn:
                rates[name].append(len(batch.mask) / (clock() - began_s))
    return rates


def main() -> None:
    """Every head, then the two loops."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=12)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--few", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--heads", default=",".join(HEADS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    words = parser.parse_args()
    clock = time.process_time if words.cpu_time else time.perf_counter
    run = RunConfig(words.device, words.precision, words.compile)
    device = torch.device(words.device)
    batch, learners = drawn(words.windows, words.frames, 2, device), {}
    for name in words.heads.split(","):
        config = preset(name)
        if config.task != "va":
            config = replace(config, task="va")
        try:
            learners[name] = init_learner(config, run, [(width,) for width in WIDTHS], device)
        except ValueError as error:
            print(f"{name}: left out, {error}")
    how = ", CPU time" if words.cpu_time else ""
    print(f"{machine()}; torch's threads {torch.get_num_threads()}, {words.device}, {words.precision}{how}")
    print(f"batches of {words.windows} windows of {words.frames} frames, {words.repeat} steps each, in turns")
    rates = timed({name: (learner, batch) for name, learner in learners.items()}, words.repeat, clock)
    beside = statistics.median(rates[next(iter(rates))])
    print(f"{'':18} parameters  windows/s                 to {next(iter(rates))}")
    for name, found in rates.items():
        count = sum(parameter.numel() for parameter in learners[name].model.parameters())
        middle = statistics.median(found)
        print(
            f"{name:18} {count:10,}  {middle:8.2f} ({min(found):.2f}–{max(found):.2f})  {middle / beside:8.2f}",
            flush=True,
        )
    for name, make, windows in (("mfn", NaiveMFN, words.windows), ("mctn", NaiveMCTN, words.few)):
        if name in learners:
            part, ours = few(batch, windows), learners[name]
            both = timed({"here": (ours, part), "loop": (straight(ours, make), part)}, words.repeat, clock)
            ratios = [own / loop for own, loop in zip(both["here"], both["loop"], strict=True)]
            shown = ", ".join(f"{way} {statistics.median(each):.3f}" for way, each in both.items())
            print(
                f"{name}, {windows} windows: {shown} windows/s, ratio {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f}–{max(ratios):.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
