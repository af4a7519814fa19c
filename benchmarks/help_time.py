"""How long `avfuse --help` takes, as a whole process: the median of 20 runs after one to warm up.

Targets: `--help` 0.1 s, `extract --help` 0.2 s. Compiled modules are kept, whatever the environment says.
"""

from __future__ import annotations

import os
import statistics
import sys
from pathlib import Path

from measure import machine, run


def main() -> None:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    script = Path(sys.executable).with_name("avfuse")
    print(machine())
    for words in (["--help"], ["extract", "--help"], ["weights", "--help"], ["status", "--help"]):
        run([str(script), *words])
        seconds = [run([str(script), *words]).seconds for _ in range(20)]
        print(f"avfuse {' '.join(words):15} median {statistics.median(seconds):.3f} s, worst {max(seconds):.3f} s")


if __name__ == "__main__":
    main()
