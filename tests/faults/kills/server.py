"""Runs in processes of their own without the seconds that loading takes: all is loaded once, each run is a fork.

`server.py store` loads what writes a store, `server.py everything` also what decodes and embeds.

    {"start": {"words": […], "log": path, "death": {…}}}   →  {"pid": …}     the command line
    {"start": {"scenario": name, "root": path, …}}         →  {"pid": …}     a function of scenarios.py
    {"wait": pid}                                          →  {"code": …}    negative: the signal that ended it

A `death` is a step at which the process ends itself; see deaths.py. Every run leads a session of its own, and writes
what it says to `<log>.out` and `<log>.err`.
"""

import gc
import importlib
import json
import os
import pkgutil
import sys
import traceback
from typing import Any

from deaths import arm  # beside this script
from scenarios import SCENARIOS

import avfuse.batch
import avfuse.encoders
import avfuse.pipeline
from avfuse.cli import main


def load() -> None:
    for room in (avfuse.encoders, avfuse.pipeline, avfuse.batch):
        for module in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            importlib.import_module(module.name)


def start(request: dict[str, Any]) -> int:
    pid = os.fork()
    if not pid:
        os._exit(run(request))
    return pid


def run(request: dict[str, Any]) -> int:
    os.setsid()
    for handle, kind in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{request['log']}.{kind}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), handle)
    if "path" in request:  # looked through for programs first
        os.environ["PATH"] = f"{request['path']}{os.pathsep}{os.environ['PATH']}"
    arm(**request.get("death", {}))
    try:
        code = work(request)
    except Exception:  # noqa: BLE001 - for the test to read
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def work(request: dict[str, Any]) -> int:
    if "scenario" in request:
        SCENARIOS[request["scenario"]](request["root"])
        return 0
    try:
        main(request["words"])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    if "start" in asked:
        return {"pid": start(asked["start"])}
    return {"code": os.waitstatus_to_exitcode(os.waitpid(asked["wait"], 0)[1])}


if __name__ == "__main__":
    if sys.argv[1] == "everything":
        load()
    gc.freeze()  # forks share what is loaded
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
