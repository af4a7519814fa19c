import hashlib
import json
import re
import unicodedata

import numpy as np
import pytest
from click.testing import CliRunner

from avfuse.features_store import commands
from avfuse.features_store.claims.claims import claim
from avfuse.features_store.clock import TOLERATED_ROWS
from avfuse.features_store.interchange.import_features import ImportRequest, import_features
from avfuse.features_store.records.verify import verify
from avfuse.features_store.store import FeatureStore

VFR_S = np.cumsum(np.where(np.arange(300) % 7 == 3, 2, 1)) * 1001 / 30000  # every seventh frame is dropped


@pytest.fixture
def planted(store):
    """Trials `b1/one` of 300 frames at a varying rate, and `two` of 40."""
    for trial, time_s in (("b1/one", VFR_S), ("two", np.arange(40) / 25)):
        rows = np.ones((len(time_s), 2), np.float32)
        store.write(trial, {"time": time_s, "own": rows, "own_valid": np.ones(len(rows), bool)}, {"fingerprint": "f"})
    return store


@pytest.fixture
def folder(tmp_path):
    """A file for each trial, a row a frame."""
    (tmp_path / "made" / "b1").mkdir(parents=True)
    np.save(tmp_path / "made" / "b1" / "one.npy", np.arange(900, dtype=np.float64).reshape(300, 3))
    np.save(tmp_path / "made" / "two.npy", np.arange(120, dtype=np.float64).reshape(40, 3))
    return tmp_path / "made"


def bring(store, folder, **more):
    return import_features(store, ImportRequest("mine", folder, **more))


def run(*words):
    return CliRunner().invoke(commands.import_features, [*map(str, words)])


def refused(store, folder, **more):
    """Why nothing was imported."""
    before = {name: trial.attributes for name, trial in store.items()}
    with pytest.raises(ValueError) as error:  # noqa: PT011 - each test looks at the reason
        bring(store, folder, **more)
    assert {name: trial.attributes for name, trial in store.items()} == before
    return str(error.value)


def test_a_row_a_frame(planted, folder):
    own = {path: path.read_bytes() for path in planted.files.root.rglob("own/c/*/*")}
    done = bring(planted, folder)
    assert (done.written, done.replaced, done.there, done.rows, done.invalid_rows) == (
        ("b1/one", "two"),
        (),
        (),
        340,
        0,
    )
    trial = planted["b1/one"]
    assert trial["mine"].dtype == np.float32
    assert np.array_equal(trial.read("mine"), np.arange(900).reshape(300, 3))
    assert trial.valid("mine").all()
    assert trial.features == ["mine", "own"]
    assert trial.attributes["fingerprint"] == "f"
    assert {path: path.read_bytes() for path in own} == own
    assert list(verify(planted)) == []
    entries = [planted[name].attributes["features"]["mine"] for name in ("b1/one", "two")]
    assert entries[0]["fingerprint"] == entries[1]["fingerprint"] == done.fingerprint
    assert entries[0]["made_from"] == "import"
    assert entries[0]["settings"]["times"] == "frames"
    content = (folder / "b1" / "one.npy").read_bytes()
    assert entries[0]["source"] == {
        "name": "one.npy",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def test_10_hz_in_float16_beside_a_varying_rate(planted, folder):
    """Rows at 10 Hz land on frames at 29.97 Hz, some of them dropped, where interpolation by hand puts them."""
    source_s = 0.02 + np.arange(int(VFR_S[-1] * 10) + 2) / 10
    rows = np.random.default_rng(3).standard_normal((len(source_s), 5)).astype(np.float16)
    np.savez(folder / "b1" / "one.npz", features=rows, time=source_s)
    (folder / "b1" / "one.npy").unlink()
    bring(planted, folder, trials=("b1/one",))
    found = planted["b1/one"].read("mine")
    for frame, at in enumerate(VFR_S):
        before = int((at - 0.02) // 0.1)
        share = (at - source_s[before]) / (source_s[before + 1] - source_s[before])
        by_hand = (1 - share) * rows[before].astype(np.float64) + share * rows[before + 1].astype(np.float64)
        assert np.abs(found[frame] - by_hand).max() < 1e-6, frame
    assert planted["b1/one"].valid("mine").all()
    # The same by --rate, from a file that has no times.
    (folder / "b1" / "one.npz").unlink()
    np.save(folder / "b1" / "one.npy", rows)
    bring(planted, folder, trials=("b1/one",), rate_hz=10.0, start_s=0.02, replace=True)
    assert np.abs(planted["b1/one"].read("mine") - found).max() < 1e-6
    assert planted["b1/one"].attributes["features"]["mine"]["settings"]["rate_hz"] == 10.0


@pytest.mark.parametrize("resample", ["linear", "nearest", "mean"])
@pytest.mark.parametrize(("rate_hz", "nan"), [(100, False), (100, True), (10, True)])
def test_streamed_in_small_blocks_it_is_the_same(planted, folder, monkeypatch, resample, rate_hz, nan):
    """Quick rows and slow ones, NaN for long and a gap, in blocks of a few rows: as the plan has it of the whole."""
    from avfuse.features_store.interchange import feature_files, import_features
    from avfuse.features_store.interchange.resampling import at_times

    source_s = np.delete(np.arange(-20, 1200) / 100, np.s_[300:420])[:: 100 // rate_hz]
    rows = np.random.default_rng(5).standard_normal((len(source_s), 2, 3))
    good = np.ones(len(rows), bool)
    if nan:
        good[[0, *range(5 * rate_hz, 7 * rate_hz), -3]] = False
        rows[~good, 1, 2] = np.nan
    np.savez(folder / "b1" / "one.npz", features=rows, time=source_s)
    (folder / "b1" / "one.npy").unlink()
    monkeypatch.setattr(feature_files, "BLOCK_BYTES", 48 * 7)
    monkeypatch.setattr(import_features, "BLOCK_BYTES", 48 * 11)
    bring(planted, folder, trials=("b1/one",), resample=resample, nan="invalid")
    plan = at_times(source_s, VFR_S, resample, good)
    expected = np.zeros((300, 2, 3))
    np.add.at(expected, plan.row, plan.weight[:, None, None] * rows[plan.source])
    assert np.allclose(planted["b1/one"].read("mine"), expected, rtol=0, atol=1e-6)
    assert np.array_equal(planted["b1/one"].valid("mine"), plan.valid)
    assert 0 < np.mean(~plan.valid) < 0.5


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        (lambda t: t + 1.5, r"it is shifted: it begins \+1\.500 s and ends \+1\.889 s"),
        (lambda t: t - 2.5, r"it is shifted: it begins -2\.500 s"),
        (lambda t: t + 100, r"they do not overlap; the file begins \+100\.000 s"),
        (lambda t: t * 1000, "it goes on for much longer; are its times in s"),
        (lambda t: t[::-1], "times must rise, and row 1 has"),
        (lambda t: np.where(t == t[7], t[6], t), "times must rise, and row 7 has"),
        (lambda t: np.where(t == t[7], np.nan, t), "the time of row 7 is not a finite number"),
    ],
)
def test_times_of_another_clock_are_caught(planted, folder, times, reason):
    time_s = VFR_S[0] + np.arange(0, 11.9, 0.1)
    np.savez(folder / "b1" / "one.npz", features=np.ones((len(time_s), 3)), time=times(time_s))
    (folder / "b1" / "one.npy").unlink()
    assert re.search(f"one.npz.*{reason}", refused(planted, folder))


def test_times_that_reach_little_are_noted(planted, folder):
    np.savez(folder / "two.npz", features=np.ones((5, 3)), time=np.arange(5) / 10)
    (folder / "two.npy").unlink()
    done = bring(planted, folder, trials=("two",))
    assert "two: its times reach 28% of the frames only" in done.notes[0]
    assert planted["two"].valid("mine").sum() == 12
    assert done.invalid_rows == 28


def test_lengths(planted, folder):
    for rows, taken in ((35, True), (45, True), (34, False), (46, False)):
        np.save(folder / "two.npy", np.arange(rows)[:, None])
        if taken:
            done = bring(planted, folder, trials=("two",), replace=True)
            found, valid = planted["two"].read("mine")[:, 0], planted["two"].valid("mine")
            assert found.tolist() == np.minimum(np.arange(40), rows - 1).tolist()
            assert valid.sum() == min(rows, 40)
            assert f"two: {rows} rows for 40 frames" in done.notes[0]
        else:
            reason = refused(planted, folder, trials=("two",), replace=True)
            assert f"two.npy has {rows} rows, and trial 'two' 40" in reason
    assert bring(planted, folder, trials=("two",), replace=True, tolerance_rows=6).rows == 40


def test_nan_is_refused_with_its_place_or_marked(planted, folder):
    rows = np.arange(120, dtype=np.float32).reshape(40, 3)
    rows[7, 1] = np.inf
    np.save(folder / "two.npy", rows)
    assert "two.npy: row 7, column 1 is inf, not a number" in refused(planted, folder)
    (folder / "two.npy").unlink()
    (folder / "two.csv").write_text("AU1,AU2\n" + "1,2\n" * 9 + "1,NaN\n" + "3,4\n" * 30)
    (folder / "b1" / "one.npy").unlink()
    assert "two.csv: row 9, AU2 is nan" in refused(planted, folder, allow_missing=True)
    bring(planted, folder, allow_missing=True, nan="invalid")
    trial = planted["two"]
    assert np.flatnonzero(~trial.valid("mine")).tolist() == [9]
    assert trial.read("mine")[8:11].tolist() == [[1, 2], [1, 2], [3, 4]]
    assert trial.attributes["features"]["mine"]["settings"]["columns"] == ["AU1", "AU2"]
    (folder / "two.csv").unlink()
    np.save(folder / "two.npy", np.full((40, 3), 1e300))
    assert "two.npy: row 0, column 0 is 1e+300" in refused(planted, folder, allow_missing=True)
    assert "has no finite row" in refused(planted, folder, allow_missing=True, nan="invalid")


def test_trials_and_files_that_do_not_match(planted, folder):
    (folder / "b1" / "one.npy").rename(folder / "b1" / "onne.npy")
    reason = refused(planted, folder)
    assert "1 file in" in reason
    assert "b1/onne: did you mean b1/one?" in reason
    reason = refused(planted, folder, ignore_unknown=True)
    assert reason.startswith("1 trial of")
    assert "has no file" in reason
    assert "b1/one;" in reason
    done = bring(planted, folder, ignore_unknown=True, allow_missing=True)
    assert (done.written, done.missing, done.unknown) == (("two",), ("b1/one",), ("b1/onne.npy",))
    assert "did you mean two?" in refused(planted, folder, trials=("twoo",))
    np.savez(folder / "two.npz", features=np.ones((40, 3)))
    assert "trial 'two' has two files" in refused(planted, folder)
    for path in (folder / "two.npz", folder / "two.npy", folder / "b1" / "onne.npy"):
        path.unlink()
    (folder / "two.pkl").touch()
    assert "holds no file TRIAL.npy, TRIAL.npz" in refused(planted, folder)
    assert "(two.pkl is pickled, which is never read)" in refused(planted, folder)
    with pytest.raises(OSError, match="nowhere"):
        bring(planted, folder / "nowhere")


def test_names_are_compared_as_people_read_them(store, tmp_path):
    composed = "Zoë.2"
    store.write(composed, {"time": np.arange(3) / 25}, {})
    with (tmp_path / f"{unicodedata.normalize('NFD', composed)}.NPY").open("wb") as file:
        np.save(file, np.ones((3, 2)))
    for other in (".hidden.npy", "notes.txt"):
        (tmp_path / other).touch()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.npy").touch()
    done = bring(store, tmp_path)
    assert done.written == (composed,)
    assert "notes.txt" in done.notes[0]


def test_files_must_be_alike(planted, folder):
    np.save(folder / "two.npy", np.ones((40, 4)))
    assert "files differ in the shape of a row: [3] in" in refused(planted, folder)
    np.save(folder / "two.npy", np.ones((40, 3), int))
    assert "files differ in the kind of numbers: floats in" in refused(planted, folder)
    (folder / "two.npy").unlink()
    np.savez(folder / "two.npz", features=np.ones((40, 3)), time=np.arange(40) / 25)
    assert "where times come from (file, frames or rate): frames in" in refused(planted, folder)
    (folder / "two.npz").unlink()
    (folder / "b1" / "one.npy").unlink()
    (folder / "two.csv").write_text("a,b,c\n" + "1,2,3\n" * 40)
    (folder / "b1" / "one.csv").write_text("a,b,d\n" + "1,2,3\n" * 300)
    assert "files differ in columns: d in" in refused(planted, folder)
    bring(planted, folder, trials=("two",))
    np.save(folder / "b1" / "one.npy", np.ones((300, 4)))
    (folder / "b1" / "one.csv").unlink()
    assert "rows of 'mine' are [3] in trial 'two'" in refused(planted, folder, trials=("b1/one",))


@pytest.mark.parametrize(
    "name",
    [
        "time",
        "iresnet50",
        "face_box",
        "face_mine",
        "clock",
        "mine_valid",
        "",
        "a/b",
        ".a",
        "a b",
        "a,b",
        "ä",
        "x" * 101,
    ],
)
def test_names_that_cannot_be(tmp_path, name):
    with pytest.raises(ValueError, match="a feature cannot be called"):
        ImportRequest(name, tmp_path)


def test_what_is_there_is_left_alone_or_replaced_when_asked(planted, folder):
    bring(planted, folder)
    content = (planted.files.root / "two" / "zarr.json").read_bytes()
    done = bring(planted, folder)
    assert (done.written, done.there) == ((), ("b1/one", "two"))
    assert (planted.files.root / "two" / "zarr.json").read_bytes() == content
    np.save(folder / "two.npy", np.zeros((40, 3)))
    reason = refused(planted, folder)
    assert "holds other rows called 'mine' in 1 trial (two): --replace" in reason
    done = bring(planted, folder, replace=True)
    assert (done.written, done.replaced, done.there) == (("two",), ("two",), ("b1/one",))
    assert not planted["two"].read("mine").any()
    assert "in 2 trials" in refused(planted, folder, resample="mean")
    with pytest.raises(ValueError, match="'own' in 2 trials"):
        import_features(planted, ImportRequest("own", folder))


def test_nothing_is_half_imported(planted, folder):
    content = (folder / "two.npy").read_bytes()
    (folder / "two.npy").write_bytes(content[:-8])
    assert "1 of 2 files cannot be taken, and nothing was imported: " in refused(planted, folder)
    (folder / "two.npy").write_bytes(content)
    with claim(planted.path, "two") as mine:
        assert mine
        with pytest.raises(ValueError, match="trial 'two' is being processed by another run"):
            bring(planted, folder)
    assert bring(planted, folder).written == ("two",)


def test_a_trial_within_a_trial_is_not_run_over(planted, folder):
    planted.write("two/mine", {"time": np.zeros(1)}, {})
    assert "a trial of that name lies in" in refused(planted, folder, allow_missing=True)


def test_a_file_that_changes_meanwhile_is_refused(planted, folder):
    def progress(names, doing):
        for name in names:
            if doing == "importing" and name == "two":
                np.save(folder / "two.npy", np.zeros((40, 3)))
            yield name

    with pytest.raises(ValueError, match=r"two\.npy, or trial 'two', has changed since it was examined"):
        import_features(planted, ImportRequest("mine", folder), progress)
    assert "mine" in planted["b1/one"]
    assert "mine" not in planted["two"]


def test_what_was_extracted_is_not_run_over(planted, folder):
    entry = {"fingerprint": "e", "made_from": "faces", "settings": {}}
    rows = np.ones((40, 3), np.float32)
    planted.add("two", {"mine": rows, "mine_valid": np.ones(40, bool)}, {"mine": entry})
    assert "'mine' of trial 'two' was extracted, not imported" in refused(planted, folder, replace=True)


def test_it_is_a_feature_like_any_other(plant_small, tmp_path, avfuse, train_words, flip):
    """Imported beside two others it trains, shows in the status, is exported, verified and removed."""
    small = plant_small(tmp_path)
    store = FeatureStore(small.store)
    (tmp_path / "made").mkdir()
    for name, trial in store.items():
        rows = trial.read("face").astype(np.float16)[::2]
        np.savez(tmp_path / "made" / name, features=rows, time=trial.time_s[::2])
    words = ("import-features", "--name", "mine", "--from", tmp_path / "made", "--store", small.store)
    assert avfuse(*words).stdout.startswith("mine of 8 trials imported from")
    run_folder = tmp_path / "run"
    trained = avfuse(*train_words(small, run_folder, "--modalities", "mine,voice"))
    assert trained.exit_code == 0, trained.stderr
    assert json.loads((run_folder / "metrics.json").read_text())["P"] > -1
    status = json.loads(avfuse("status", "--store", small.store, "--json").stdout)
    assert status["features"]["mine"]["trials"] == 8
    assert len(status["features"]["mine"]["made"]) == 1
    out = tmp_path / "tables"
    exported = avfuse("export", "--store", small.store, "--to", "npy", "--out", out, "--features", "mine")
    assert exported.exit_code == 0
    assert np.array_equal(np.load(out / "clip0" / "mine.npy"), store["clip0"].read("mine"))
    assert avfuse("verify", "--store", small.store).exit_code == 0
    flip(small.store / "clip0" / "mine" / "c" / "0" / "0", 30)
    broken = avfuse("verify", "--store", small.store)
    assert broken.exit_code == 3
    fix = f"avfuse import-features --name mine --from … --store {small.store} --replace --trials clip0"
    assert fix in broken.stderr
    assert not re.search("extract[^\n]*mine", broken.stderr)
    assert avfuse("remove", "--feature", "mine", "--store", small.store).exit_code == 0
    assert "mine" not in FeatureStore(small.store)["clip0"]


def test_damaged_rows_are_made_anew_from_the_same_file(planted, folder, flip):
    """As `verify` says: the file and the settings are the same, so that only --replace looks at the rows."""
    bring(planted, folder)
    flip(planted.files.root / "two" / "mine" / "c" / "0" / "0", 30)
    assert bring(planted, folder).written == ()
    assert bring(planted, folder, replace=True).written == ("two",)
    assert list(verify(planted)) == []
    (planted.files.root / "b1" / "one" / "mine_valid" / "c" / "0").unlink()
    assert bring(planted, folder, replace=True).replaced == ("b1/one",)
    assert list(verify(planted)) == []


def test_faces_of_one_video_are_trials_of_their_own(store, tmp_path):
    for face in range(2):
        store.write(f"v/face{face}", {"time": np.arange(5) / 25}, {})
    store.write("v", {}, {"faces": 2})
    (tmp_path / "made" / "v").mkdir(parents=True)
    for face in range(2):
        np.save(tmp_path / "made" / "v" / f"face{face}.npy", np.full((5, 2), face))
    with claim(store.path, "v") as mine:
        assert mine
        assert "trial 'v' is being processed by another run" in refused(store, tmp_path / "made")
    assert bring(store, tmp_path / "made").written == ("v/face0", "v/face1")
    assert store["v/face1"].read("mine").all()
    assert list(verify(store)) == []


def test_a_link_to_nowhere_is_an_error(planted, folder):
    (folder / "two.npy").unlink()
    (folder / "two.npy").symlink_to(folder / "gone.npy")
    assert "two.npy cannot be read: No such file or directory" in refused(planted, folder)


def test_the_command(planted, folder):
    words = ("--name", "mine", "--from", folder, "--store", planted.path)
    result = run(*words, "--dry-run")
    assert (result.exit_code, result.stdout) == (
        0,
        f"mine of 2 trials would be imported from {folder} (340 rows, 0 of them not valid)\n",
    )
    assert "mine" not in planted["two"]
    result = run(*words, "--json")
    assert json.loads(result.stdout)["written"] == ["b1/one", "two"]
    assert json.loads(result.stdout)["invalid_rows"] == 0
    result = run(*words)
    assert result.stdout.endswith("2 left alone: there already, from the same file\n")
    result = run(*words, "--resample", "mean")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert run(*words, "--start-s", 1).exit_code == 2
    assert "is not an avfuse store" in run("--name", "mine", "--from", folder, "--store", folder).stderr
    assert not (folder / "zarr.json").exists()
    tolerance = next(option for option in commands.import_features.params if option.name == "tolerance_rows")
    assert tolerance.default == TOLERATED_ROWS


def test_behind_a_url(folder, make_arrays):
    store = FeatureStore("memory://imported.zarr", mode="a")
    store.write("two", make_arrays(40), {})
    bring(store, folder, ignore_unknown=True)
    assert store["two"]["mine"].shape == (40, 3)
