"""A process that has ended without unwinding is cleaned up after: its claims and scratch go, those of others stay."""

from avfuse.features_store.claims.claim_file import look
from avfuse.features_store.claims.claims import release_all, release_folder
from avfuse.features_store.disk.owner import Owner
from avfuse.features_store.store import FeatureStore


def left_by(root, owner, plant, claim_file):
    """A claim, a scratch folder with a file in it, and a scratch file of `owner`."""
    path = claim_file(root, f"trial of {owner.pid}")
    plant(path, (owner.host, owner.pid, owner.started))
    name = f"{owner.host}.{owner.pid}.{owner.started}."
    (root / ".tmp" / f"{name}0a").mkdir(parents=True)
    (root / ".tmp" / f"{name}0a" / "rows").write_text("x")
    (root / ".tmp" / f"{name}0b").write_text("x")
    return [path, root / ".tmp" / f"{name}0a", root / ".tmp" / f"{name}0b"]


def test_what_one_process_has_left_goes(tmp_path, plant, claim_file):
    ended, other = Owner("elsewhere", 12, 7), Owner("elsewhere", 123, 7)
    paths = left_by(tmp_path, ended, plant, claim_file)
    kept = left_by(tmp_path, other, plant, claim_file)
    release_folder(tmp_path, ended)
    assert [path for path in paths if path.exists()] == []
    assert all(path.exists() for path in kept)
    seen = look(kept[0])
    assert seen is not None
    assert seen.owner == other


def test_nothing_is_left_of_a_store_that_only_it_was_in(tmp_path, plant, claim_file):
    store, ended = FeatureStore(tmp_path / "s.zarr", mode="a"), Owner("elsewhere", 12, 7)
    before = sorted((tmp_path / "s.zarr").iterdir())
    left_by(tmp_path / "s.zarr", ended, plant, claim_file)
    release_all(store, ended)
    assert sorted((tmp_path / "s.zarr").iterdir()) == before
    release_all(store, ended)


def test_a_store_behind_a_url_has_no_claims(tmp_path):
    release_all(FeatureStore(f"memory://{tmp_path.name}/s.zarr", mode="a"), Owner.current())
