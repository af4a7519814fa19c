"""What clocks, network disks and full ones do to claims, and what is swept of them."""

import os
import resource
import time

import pytest

from avfuse.features_store.claims import claims
from avfuse.features_store.claims.claims import claim
from avfuse.features_store.disk.owner import Owner


def test_what_the_dead_left_is_swept(tmp_path, dead_owner, plant, claim_file):
    """A claim on a trial that is done, which nobody asks for again; a right to a claim that is no more."""
    me = Owner.current()
    alive = claim_file(tmp_path, "alive")
    plant(alive, (me.host, me.pid, me.started), token="new")
    plant(claim_file(tmp_path, "done"), dead_owner)
    plant(alive.with_name(f"{alive.name}.old.0"), dead_owner)
    plant(alive.with_name(f"{'0' * 40}.json.gone.0"), (me.host, me.pid, me.started))
    plant(alive.with_name(f"{alive.name}.new.0"), (me.host, me.pid, me.started))
    claims.sweep_claims(tmp_path)
    assert sorted((tmp_path / ".claims").iterdir()) == [alive, alive.with_name(f"{alive.name}.new.0")]
    for path in (tmp_path / ".claims").iterdir():
        path.unlink()
    claims.sweep_claims(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("skew_s", [-7200, 7200])
def test_the_clock_of_this_host_does_not_matter(tmp_path, monkeypatch, skew_s, plant, claim_file):
    """A foreign claim is as old as the disk says, on which its owner touches it."""
    now = time.time
    for age_s, taken in ((300, False), (700, True)):
        plant(claim_file(tmp_path, f"{age_s}"), ("elsewhere", 1, 0), age_s=age_s)
        with monkeypatch.context() as clock:
            clock.setattr(time, "time", lambda: now() + skew_s)
            with claim(tmp_path, f"{age_s}") as mine:
                assert mine is taken


def test_a_claim_from_the_future_is_brought_to_today(tmp_path, plant, claim_file):
    """The clock went back: the claim would live on until the old time comes, though its owner may be dead."""
    path = claim_file(tmp_path)
    plant(path, ("elsewhere", 1, 0), age_s=-24 * 3600)
    with claim(tmp_path, "a") as mine:
        assert not mine
    assert abs(path.stat().st_mtime - time.time()) < 60
    plant(path, ("elsewhere", 1, 0), age_s=700)
    with claim(tmp_path, "a") as mine:
        assert mine


def test_a_network_disk_that_makes_a_link_and_loses_its_answer(tmp_path, monkeypatch):
    link = os.link

    def twice(*names):
        link(*names)
        link(*names)

    monkeypatch.setattr(os, "link", twice)
    with claim(tmp_path, "a") as mine, claim(tmp_path, "a") as other:
        assert mine
        assert not other
    assert list(tmp_path.iterdir()) == []


def test_a_claim_that_is_there_and_not_yet_to_be_seen(tmp_path, monkeypatch):
    """On a network disk a name may be taken while reading it still finds nothing."""

    def taken(*_names):
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(os, "link", taken)
    with claim(tmp_path, "a") as mine:
        assert not mine


@pytest.mark.parametrize("dead", [False, True])
def test_a_disk_without_hard_links(tmp_path, monkeypatch, dead_owner, dead, plant, claim_file):
    def refuse(*_names):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    if dead:
        plant(claim_file(tmp_path), dead_owner)
    with claim(tmp_path, "a") as mine, claim(tmp_path, "a") as other:
        assert mine
        assert not other
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_claim(tmp_path, monkeypatch):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"), claim(tmp_path, "a"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
