import json
import os
import subprocess
import sys
import time
import uuid

import pytest

from avfuse.features_store import publish
from avfuse.features_store.disk import backends
from avfuse.features_store.disk.owner import Owner
from avfuse.features_store.records.verify import verify
from avfuse.features_store.store import FeatureStore


def scratch_name(host, pid, started=0):
    return f"{host}.{pid}.{started}.{uuid.uuid4().hex}"


@pytest.fixture
def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left_over(store, name, age_s=0.0):
    folder = store.files.root / ".tmp" / name / "trial"
    folder.mkdir(parents=True)
    (folder / "zarr.json").write_text("{}")
    for path in (folder / "zarr.json", folder, folder.parent):
        os.utime(path, (time.time() - age_s,) * 2)
    return folder.parent


def test_temporary_directory_goes_away(store):
    with store.temporary_directory() as scratch:
        assert scratch.parent == store.files.root / ".tmp"
        (scratch / "x").write_text("x")
        assert store.sweep() == []
        assert store.trials() == []
    assert not scratch.parent.exists()


def test_sweep_removes_what_the_dead_left(store, dead_pid):
    me = Owner.current()
    dead = [
        left_over(store, scratch_name(me.host, dead_pid)),
        left_over(store, scratch_name(me.host, me.pid, me.started + 1)),  # a number given again
        left_over(store, scratch_name("elsewhere", 1), age_s=25 * 3600),
        left_over(store, "odd", age_s=25 * 3600),
    ]
    kept = [
        left_over(store, scratch_name(me.host, me.pid, me.started), age_s=25 * 3600),
        left_over(store, scratch_name("elsewhere", 1)),
    ]
    assert store.sweep() == sorted(path.name for path in dead)
    assert [path.exists() for path in dead + kept] == [False] * 4 + [True] * 2


def test_kill_while_writing_leaves_no_trial(store, arrays):
    code = (
        "import os, sys, numpy as np\n"
        "from avfuse.features_store.store import FeatureStore\n"
        "class Rows:\n"
        "    shape, dtype = (9, 2), np.dtype('float32')\n"
        "    def __getitem__(self, rows): os.kill(os.getpid(), 9)\n"
        "FeatureStore(sys.argv[1], mode='a').write('a', {'time': np.zeros(9), 'x': Rows()}, {})\n"
    )
    assert subprocess.run([sys.executable, "-c", code, store.path], check=False).returncode == -9
    assert (store.files.root / ".tmp").exists()
    assert store.trials() == []
    assert len(store.sweep()) == 1
    store.write("a", arrays, {})
    assert store.trials() == ["a"]


def test_failed_source_leaves_nothing(store, arrays):
    class Broken:
        shape, dtype = (40, 2), arrays["vggish"].dtype

        def __getitem__(self, rows):
            return arrays["vggish"][rows]

    with pytest.raises(ValueError, match="the source gave"):
        store.write("b/a", {**arrays, "x": Broken()}, {})
    assert os.listdir(store.path) == ["zarr.json"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("survived", range(3))
def test_killed_replacement_is_not_done(store, make_arrays, monkeypatch, survived):
    """Stopped with the old trial marked, while its arrays go, before the new zarr.json."""
    store.write("a/b", make_arrays(5), {})
    store.write("a", make_arrays(10), {"fingerprint": "old"})
    if survived == 0:
        monkeypatch.setattr(publish, "array_folders", _raise)
    elif survived == 1:
        monkeypatch.setattr(type(store.files), "remove", _raise)
    else:
        monkeypatch.setattr(publish, "fsync_path", _raise)
    with pytest.raises(Killed):
        store.write("a", make_arrays(20), {"fingerprint": "new"})
    monkeypatch.undo()
    assert (store.attributes("a") or {}).get("fingerprint") != "old"
    assert (store.attributes("a") or {}).get("fingerprint") != "new"
    assert store.trials() == ["a/b"]
    assert store.incomplete() == ["a"]
    store.write("a", make_arrays(20), {"fingerprint": "new"})
    assert (store.attributes("a") or {}).get("fingerprint") == "new"
    assert store["a"].rows == 20
    assert store.trials() == ["a", "a/b"]


def _raise(*_args):
    raise Killed


def test_without_complete_it_is_not_done(store, arrays):
    store.write("a", arrays, {"fingerprint": "f"})
    path = store.files.root / "a" / "zarr.json"
    node = json.loads(path.read_text())
    assert (store.attributes("a") or {}).get("fingerprint") == "f"
    assert (store.attributes("a") or {}).get("fingerprint") != "other"
    del node["attributes"]["complete"]
    path.write_text(json.dumps(node))
    assert (store.attributes("a") or {}).get("fingerprint") != "f"
    assert store.attributes("a") is None
    assert "a" not in store
    assert store.trials() == []
    assert store.incomplete() == ["a"]


def test_broken_metadata_is_not_done_and_is_replaced(store, arrays):
    store.write("a", arrays, {"fingerprint": "f"})
    for text in ("{", "[]", '{"attributes": 3}', "\x00"):
        (store.files.root / "a" / "zarr.json").write_text(text)
        assert store.attributes("a") is None
        assert store.incomplete() == ["a"]
        store.write("a", arrays, {"fingerprint": "f"})
        assert (store.attributes("a") or {}).get("fingerprint") == "f"


def test_array_without_metadata_is_replaced(store, arrays):
    store.write("a", arrays, {})
    (store.files.root / "a" / "vggish" / "zarr.json").unlink()
    store.write("a", arrays, {})
    assert (store["a"]["vggish"][:] == arrays["vggish"]).all()


def test_no_hard_links(store, arrays, monkeypatch):
    def refuse(*_args):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    store.write("b/c/a", arrays, {})
    assert store.trials() == ["b/c/a"]


def test_a_trial_below_one_that_is_being_removed_stays(store, arrays, monkeypatch):
    """Written after its remover has looked whether anything is below."""
    store.write("a", arrays, {})
    remove, other = type(store.files).remove, FeatureStore(store.path, mode="a")

    def looked(files, key):
        if key in ("a", "a/zarr.json"):
            monkeypatch.undo()
            other.write("a/below", arrays, {})
        remove(files, key)

    monkeypatch.setattr(type(store.files), "remove", looked)
    store.remove("a")
    assert store.trials() == ["a/below"]
    assert list(verify(store)) == []
    store.remove("a/below")
    store.remove("a")
    assert os.listdir(store.path) == ["zarr.json"]


@pytest.mark.parametrize("step", ["link_file", "ensure_groups"])
def test_the_folder_for_a_trial_vanishes_meanwhile(store, arrays, monkeypatch, step):
    """Another run has removed the trial above it, and its folder with it: that is made anew."""
    module = {"link_file": backends, "ensure_groups": publish}[step]
    real = getattr(module, step)

    def before_and_after(*words):
        monkeypatch.undo()
        if step == "link_file":
            words[1].parent.rmdir()
        real(*words)
        FeatureStore(store.path, mode="a").remove("a")

    monkeypatch.setattr(module, step, before_and_after)
    store.write("a/below", arrays, {})
    assert store.trials() == ["a/below"]


def test_scratch_and_claims_go_before_they_are_looked_through(store, monkeypatch):
    """Another process sweeps, or has ended its own."""
    for folder in (".tmp", ".claims"):
        (store.files.root / folder).mkdir()
    monkeypatch.setattr(os, "listdir", lambda _: (_ for _ in ()).throw(FileNotFoundError()))
    assert store.sweep() == []


def test_two_processes_make_one_store(tmp_path):
    path = str(tmp_path / "s.zarr")
    code = (
        "import sys, numpy as np\n"
        "from avfuse.features_store.store import FeatureStore\n"
        "store = FeatureStore(sys.argv[1], mode='a')\n"
        "for i in range(8): store.write(f'shared/{sys.argv[2]}{i}', {'time': np.arange(5.0)}, {})\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code, path, letter]) for letter in "ab"]
    assert [process.wait() for process in children] == [0, 0]
    assert len(FeatureStore(path)) == 16
    assert not (tmp_path / "s.zarr" / ".tmp").exists()
