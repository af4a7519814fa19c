"""How long `avfuse --help` takes, as a whole process: the median of 20 runs after one to warm up. Target: 0.5 s."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from measure import machine, run


def main() -> None:
    script = Path(sys.executable).with_name("avfuse")
    print(machine())
    for words in (["--help"], ["extract", "--help"], ["weights", "--help"], ["status", "--help"]):
        run([str(script), *words])
        seconds = [run([str(script), *words]).seconds for _ in range(20)]
        print(f"avfuse {' '.join(words):15} median {statistics.median(seconds):.3f} s, worst {max(seconds):.3f} s")


if __name__ == "__main__":
    main()
