import json
import os
import subprocess
import sys
import time

import pytest

from avfuse.features_store.claims import claims
from avfuse.features_store.claims.claims import claim, claimed_features
from avfuse.features_store.disk.owner import Owner

# Every process goes through all trials in the same order and writes down those it may do.
WORKER = """
import sys, time
from pathlib import Path
from avfuse.features_store.claims.claims import claim
store, me, start = sys.argv[1], sys.argv[2], float(sys.argv[3])
done = Path(store, "done"); done.mkdir(parents=True, exist_ok=True)
time.sleep(max(0, start - time.time()))
for number in range(30):
    with claim(store, f"t{number}") as mine:
        if mine and not (done / f"t{number}").exists():
            doing = Path(store, f"doing{number}")
            doing.touch(exist_ok=False)
            time.sleep(0.003)
            doing.unlink()
            with (done / f"t{number}").open("x") as file: file.write(me)
"""


def test_one_at_a_time(tmp_path):
    with claim(tmp_path, "a") as first, claim(tmp_path, "a") as second, claim(tmp_path, "b") as other:
        assert (first, second, other) == (True, False, True)
    with claim(tmp_path, "a") as again:
        assert again
    assert not (tmp_path / ".claims").exists()


def test_released_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), claim(tmp_path, "a"):
        raise ZeroDivisionError
    assert not (tmp_path / ".claims").exists()


def test_dead_owner_is_followed(tmp_path, dead_owner, plant, claim_file):
    path = claim_file(tmp_path)
    plant(path, dead_owner)
    with claim(tmp_path, "a") as mine:
        assert mine
    assert not (tmp_path / ".claims").exists()


def test_number_given_again_is_another_process(tmp_path, plant, claim_file):
    me = Owner.current()
    path = claim_file(tmp_path)
    plant(path, (me.host, me.pid, me.started))
    with claim(tmp_path, "a") as mine:
        assert not mine
    plant(path, (me.host, me.pid, me.started - 1))
    with claim(tmp_path, "a") as mine:
        assert mine


@pytest.mark.parametrize(("age_s", "taken"), [(0, False), (599, False), (700, True)])
def test_foreign_claim_lives_its_time(tmp_path, age_s, taken, plant, claim_file):
    path = claim_file(tmp_path)
    plant(path, ("elsewhere", 1, 0), age_s=age_s)
    with claim(tmp_path, "a", ttl_s=600) as mine:
        assert mine is taken


@pytest.mark.parametrize(("age_s", "taken"), [(500, False), (700, True)])
def test_foreign_claim_lives_ten_minutes(tmp_path, age_s, taken, plant, claim_file):
    """The documented time, where nobody asks for another."""
    plant(claim_file(tmp_path), ("elsewhere", 1, 0), age_s=age_s)
    with claim(tmp_path, "a") as mine:
        assert mine is taken


@pytest.mark.parametrize(("age_s", "taken"), [(0, False), (8, False), (12, True)])
def test_half_a_claim_is_left_by_a_kill(tmp_path, age_s, taken, claim_file):
    path = claim_file(tmp_path)
    path.parent.mkdir()
    path.write_text("")  # made, and not yet written
    os.utime(path, (time.time() - age_s,) * 2)
    with claim(tmp_path, "a", ttl_s=600) as mine:
        assert mine is taken


def test_who_died_while_taking_over_is_followed(tmp_path, dead_owner, plant, claim_file):
    path = claim_file(tmp_path)
    plant(path, dead_owner, token="old")
    plant(path.with_name(f"{path.name}.old.0"), dead_owner)
    with claim(tmp_path, "a") as mine:
        assert mine
    assert not (tmp_path / ".claims").exists()


def test_late_thief_does_not_take_a_fresh_claim(tmp_path, dead_owner, plant, claim_file):
    """Two find the same dead claim; the first takes it over before the second acts."""
    path = claim_file(tmp_path)
    plant(path, dead_owner, token="old")
    with claim(tmp_path, "a") as mine:
        assert mine
        claims._remove(path, "old", 600, only_stale=True)
        with claim(tmp_path, "a") as other:
            assert not other


def test_living_thief_has_the_right_alone(tmp_path, dead_owner, plant, claim_file):
    me = Owner.current()
    path = claim_file(tmp_path)
    plant(path, dead_owner, token="old")
    plant(path.with_name(f"{path.name}.old.0"), (me.host, me.pid, me.started))
    with claim(tmp_path, "a") as mine:
        assert not mine


def test_heartbeat_keeps_it_fresh(tmp_path):
    with claim(tmp_path, "a", ttl_s=0.25):
        path = next((tmp_path / ".claims").iterdir())
        plant_s = time.time() - 1000
        os.utime(path, (plant_s, plant_s))
        for _ in range(200):
            if path.stat().st_mtime > plant_s + 500:
                break
            time.sleep(0.02)
        assert path.stat().st_mtime > plant_s + 500


def test_lost_claim_is_left_to_its_new_owner(tmp_path, plant):
    with claim(tmp_path, "a"):
        path = next((tmp_path / ".claims").iterdir())
        plant(path, ("elsewhere", 1, 0), token="theirs")
    assert json.loads(path.read_text())["token"] == "theirs"


@pytest.mark.parametrize("dead", [False, True])
def test_processes_do_each_trial_exactly_once(tmp_path, dead_owner, dead, plant, claim_file):
    if dead:
        for number in range(30):
            plant(claim_file(tmp_path, f"t{number}"), dead_owner)
    start = str(time.time() + 0.6)
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    children = [subprocess.Popen([*command, str(number), start]) for number in range(4)]
    assert [process.wait() for process in children] == [0] * 4
    assert len(list((tmp_path / "done").iterdir())) == 30
    assert not (tmp_path / ".claims").exists()


def test_folder_that_vanishes_while_it_is_made(tmp_path, monkeypatch):
    """Another process removes `.claims` between `mkdir` and the question whether it is tme."""
    mkdir, left = os.mkdir, [3]

    def vanishing(path, *mode):
        if os.fspath(path).endswith(".claims") and left[0]:
            left[0] -= 1
            raise FileExistsError(17, "File exists", path)
        mkdir(path, *mode)

    monkeypatch.setattr(os, "mkdir", vanishing)
    with claim(tmp_path, "a") as mine:
        assert mine
    assert left == [0]


def test_killed_process_is_followed(tmp_path):
    code = (
        "import os, sys\nfrom avfuse.features_store.claims.claims import claim\n"
        "with claim(sys.argv[1], 'a') as mine:\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == -9
    assert (tmp_path / ".claims").exists()
    with claim(tmp_path, "a") as mine:
        assert mine


def test_others_see_for_which_features(store):
    assert claimed_features(store.path, "a") is None
    with claim(store.path, "a", features=("mfcc", "logmel")):
        assert claimed_features(store.path, "a") == ("mfcc", "logmel")
        assert claimed_features(store.path, "b") is None
    with claim(store.path, "a"):
        assert claimed_features(store.path, "a") == ()
    assert claimed_features("memory://claims.zarr", "a") is None
