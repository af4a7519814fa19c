"""What S1 learns from features whose truth is known, in its full width, and the controls beside it.

    python benchmarks/planted.py [--epochs 12]

The planted store, its two laws and the scores are those of tests/fusion (conftest.py, test_planted.py), with the
widths of the real features (512, 128, 128) and the preset's own network; lr 1e-3 and one epoch of warm-up, since
forty trials make few steps. P is on the ten subjects that were not trained on; "joint" is the part of the labels
that only face and voice together reveal.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from measure import machine

from avfuse.fusion.models.crossattn import CrossAttentionSettings
from avfuse.fusion.settings import preset

TESTS = Path(__file__).parents[1] / "tests" / "fusion"
CONFIG = replace(preset("crossattn"), lr=1e-3, warmup_epochs=1)
assert isinstance(CONFIG.model, CrossAttentionSettings)
NEAR = replace(CONFIG, model=replace(CONFIG.model, attention_reach=12))
RUNS = (
    ("context law, S1", "context", False, CONFIG),
    ("context law, face alone", "context", False, replace(CONFIG, modalities=("iresnet50",))),
    ("context law, voice alone", "context", False, replace(CONFIG, modalities=("vggish", "logmel_vgg"))),
    ("context law, shuffled labels", "context", True, CONFIG),
    ("lag law, S1", "lag", False, CONFIG),
    ("lag law, attention_reach=12", "lag", False, NEAR),
)


def module(name: str) -> ModuleType:
    """A file of the tests as a module."""
    spec = importlib.util.spec_from_file_location(name, next(TESTS.rglob(f"{name}.py")))
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules[name] = found
    spec.loader.exec_module(found)
    return found


def main() -> None:
    """Plant, train, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    epochs = parser.parse_args().epochs
    plant, scores = module("conftest").plant, module("test_planted").scores
    print(machine())
    print(f"{'':30}      P  joint P  seconds", flush=True)
    for name, law, shuffled, config in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            planted = plant(Path(folder), law=law, shuffled=shuffled, widths=(512, 128, 128))
            began_s = time.monotonic()
            p, joint = scores(planted, Path(folder) / "run", replace(config, max_epochs=epochs))
        joint_p = "–" if shuffled else f"{joint:.3f}"  # another trial's labels have no part of this one
        print(f"{name:30}  {p:5.3f}  {joint_p:>7}  {time.monotonic() - began_s:7.0f}", flush=True)


if __name__ == "__main__":
    main()
