"""Which trials a folder of videos makes, and which of them are still to do."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avfuse.encoders.table import entries_for
from avfuse.features_store.labels.kinds import AU, EXPR
from avfuse.features_store.records.failures import FailureRecord, append_failure
from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.config import ExtractConfig
from avfuse.pipeline.extraction.provenance import UNRECORDED, crops_digest, source_attributes
from avfuse.pipeline.runs.discover import (
    PLAYLIST_SUFFIXES,
    VIDEO_SUFFIXES,
    check_sources,
    find_jobs,
    find_sources,
    find_video,
    videos_by_name,
    walk_videos,
)
from avfuse.pipeline.runs.plan import Selection, Standing, make_plan, shard_of, standing

CONFIG = ExtractConfig(features=("fake_face", "fake_sound"))
DONE = Standing(adds=True)


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    return folder


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def annotate(folder, **rows):
    for number, (trial, count) in enumerate(rows.items()):
        path = folder / "9th" / "VA_Estimation_Challenge" / ("Train_Set" if number % 2 else "Validation_Set")
        path.mkdir(parents=True, exist_ok=True)
        (path / f"{trial}.txt").write_text("valence,arousal\n" + "0.1,-0.2\n" * count)
    for split in ("Train_Set", "Validation_Set"):
        (folder / "9th" / "VA_Estimation_Challenge" / split).mkdir(parents=True, exist_ok=True)
    return folder


def jobs_of(videos, annotations=None, crops=None, config=CONFIG):
    return find_jobs(find_sources(videos, annotations, crops), config)


@pytest.mark.parametrize(
    ("trial", "file", "found"),
    [
        ("a/one", None, "a/one.mp4"),
        ("b/one/face0", "one.avi", "b/one.avi"),
        ("faces/x", "x.mp4", "faces/x.mp4"),
        ("two_left", "two.mov", "b/two.mov"),  # moved into a folder
        ("c/two", None, "b/two.mov"),
        ("c/two", "two.mp4", None),  # another person's
        ("one", None, None),  # there are two, and nothing says which
        ("one", "one.avi", "b/one.avi"),
        ("three", "three.mkv", "three.mkv"),
        ("three", None, None),
        ("three", "three.webm", None),
        ("a/one", "one.mkv", "a/one.mp4"),  # converted since: whoever needs the very file looks at its size
    ],
)
def test_a_trials_video(videos, trial, file, found):
    touch(videos, "a/one.mp4", "b/one.avi", "b/two.mov", "faces/x.mp4", "three.mp4", "three.mkv")
    path = find_video(trial, {"source": {"name": file}}, videos_by_name(videos))
    assert (path.relative_to(videos).as_posix() if path else None) == found


def test_walks_sub_folders_and_skips_what_is_not_a_video(videos):
    touch(videos, "b/x.MP4", "a.avi", "notes.txt", ".hidden.mp4", "b/sound.wav", "list.m3u8", "-dash.mkv")
    names = {path.relative_to(videos).as_posix() for path in walk_videos(videos)}
    assert names == {"b/x.MP4", "a.avi", "list.m3u8", "-dash.mkv"}


def test_results_of_our_own_are_not_taken_for_videos(videos):
    touch(videos, "a.mp4", "predicted/a.mp4", "predicted/sub/b.mp4", "theirs/c.mp4")
    (videos / "predicted" / "made.json").write_text(json.dumps({"results": "run", "made": {}, "files": ["a.mp4"]}))
    (videos / "theirs" / "made.json").write_text(json.dumps({"made": "by hand"}))
    assert [path.relative_to(videos).as_posix() for path in walk_videos(videos)] == ["a.mp4", "theirs/c.mp4"]
    assert len(list(walk_videos(videos / "predicted"))) == 2  # they are asked for by name


def test_a_folder_in_which_nothing_is_a_video_says_so(videos):
    touch(videos, "a.wav", "b/c.wav", "labels.txt", "README", ".DS_Store")
    with pytest.raises(ValueError, match=r"nothing here is a video by its suffix \(its files: 2 .wav, ") as error:
        jobs_of(videos)
    assert str(videos) in str(error.value)


def test_an_empty_folder_says_so(videos):
    with pytest.raises(ValueError, match="it has no files"):
        jobs_of(videos)


@pytest.mark.parametrize(
    "suffix",
    ["m2t", "MOD", "tod", "ogm", "264", "H265", "hevc", "lrv", "insv", "gif", "360", "dav", "vro", "mjpg", "3gpp"],
)
def test_what_cameras_write_is_tried(videos, suffix):
    touch(videos, f"clip.{suffix}")
    (job,), failures, _ = jobs_of(videos)
    assert (job.trial, failures) == ("clip", [])


def test_every_suffix_is_documented():
    text = (Path(__file__).parents[3] / "docs" / "store.md").read_text()
    assert set(re.findall(r"(?<=[ `])\.\w[\w-]*", text)) >= VIDEO_SUFFIXES | PLAYLIST_SUFFIXES


def test_a_link_that_leads_back_up_ends(videos):
    touch(videos, "a.mp4")
    (videos / "loop").symlink_to(videos)
    assert [path.name for path in walk_videos(videos)] == ["a.mp4"]


def test_sub_folders_keep_same_names_apart(videos):
    touch(videos, "batch1/10-60-1280x720.mp4", "batch2/10-60-1280x720.mp4")
    jobs, failures, _ = jobs_of(videos)
    assert [job.trial for job in jobs] == ["batch1/10-60-1280x720", "batch2/10-60-1280x720"]
    assert not failures


def test_a_clash_is_an_error_for_the_second(videos):
    touch(videos, "a.avi", "a.mp4")
    jobs, (failure,), _ = jobs_of(videos)
    assert [job.name for job in jobs] == ["a.avi"]
    assert failure.video == "a.mp4"
    assert "same trial 'a' as a.avi" in failure.reason


def test_folders_and_playlists_are_named_failures(videos):
    touch(videos, "list.m3u8")
    (videos / "x.mp4").mkdir()
    _, failures, _ = jobs_of(videos)
    reasons = {failure.video: failure.reason for failure in failures}
    assert "playlist" in reasons["list.m3u8"]
    assert "directory" in reasons["x.mp4"]


def test_annotations_give_names_lengths_and_sides(videos, tmp_path):
    touch(videos, "batch1/video59.mp4", "batch1/105.avi", "7.mp4")
    labels = annotate(tmp_path / "labels", video59_left=12, video59_right=13, video59=14, absent=3, **{"105": 7})
    jobs, failures, notes = jobs_of(videos, labels)
    found = {job.trial: (job.name, job.face, job.length) for job in jobs}
    assert found == {
        "batch1/video59": ("batch1/video59.mp4", "largest", 14),
        "batch1/video59_left": ("batch1/video59.mp4", "left", 12),
        "batch1/video59_right": ("batch1/video59.mp4", "right", 13),
        "batch1/105": ("batch1/105.avi", "largest", 7),
        "7": ("7.mp4", "largest", None),
    }
    assert not failures
    assert notes == ["no video for 1 annotated trial: absent"]


@pytest.mark.parametrize("kind", [EXPR, AU], ids=lambda kind: kind.name)
def test_labels_of_another_task_give_names_and_lengths_as_well(videos, tmp_path, kind):
    touch(videos, "video59.mp4")
    path = tmp_path / "labels" / kind.folder / "Train_Set" / "video59_left.txt"
    path.parent.mkdir(parents=True)
    path.write_text(f"{kind.header}\n" + 9 * f"{','.join('0' * kind.width)}\n")
    jobs, failures, _ = jobs_of(videos, tmp_path / "labels")
    assert [(job.trial, job.face, job.length) for job in jobs] == [("video59_left", "left", 9)]
    assert not failures


def test_labels_in_folders_are_of_the_videos_in_these_folders(videos, tmp_path):
    touch(videos, "batch1/a.mp4", "batch2/a.mp4", "batch2/b.mp4", "c.mp4")
    for name in ("batch1/a.csv", "batch2/a.csv", "b.csv", "batch1/c.csv", "batch2/b_left.txt"):
        (tmp_path / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "labels" / name).write_text("valence,arousal\n" + "0,0\n" * len(name))
    jobs, failures, notes = jobs_of(videos, tmp_path / "labels")
    found = {job.trial: job.length for job in jobs}
    assert found == {"batch1/a": 12, "batch2/a": 12, "batch2/b_left": 17, "c": None}
    assert not failures
    assert notes == ["no video for 2 annotated trials: b, batch1/c"]


def test_labels_with_times_leave_the_length_to_the_video(videos, tmp_path):
    touch(videos, "a.mp4", "b.mp4", "c.mp4")
    (tmp_path / "labels").mkdir()
    for name, text in (("a_left", "0,0,0\n1,0,0\n"), ("a_right", "0.5,,\n"), ("b", "")):
        (tmp_path / "labels" / f"{name}.csv").write_text(f"time,valence,arousal\n{text}")
    sources = find_sources(videos, tmp_path / "labels", None)
    jobs, (failure,), _ = find_jobs(sources, CONFIG)
    assert {job.trial: (job.face, job.length) for job in jobs} == {
        "a_left": ("left", None),
        "a_right": ("right", None),
        "c": ("largest", None),
    }
    assert "no label rows" in failure.reason
    assert check_sources(sources, jobs, CONFIG) == ["no labels for 1 of 3 trials, which get one row per frame: c"]


def test_a_broken_annotation_fails_its_own_trial_alone(videos, tmp_path):
    touch(videos, "a.mp4", "b.mp4")
    labels = annotate(tmp_path / "labels", a=3, b=3)
    (path,) = labels.rglob("a.txt")
    path.write_text("arousal,valence\n0.1,0.2\n")
    jobs, (failure,), _ = jobs_of(videos, labels)
    assert [job.trial for job in jobs] == ["b"]
    assert f"{path}:1" in failure.reason


def test_an_annotation_without_rows_fails_its_trial(videos, tmp_path):
    touch(videos, "a.mp4")
    _, (failure,), _ = jobs_of(videos, annotate(tmp_path / "labels", a=0))
    assert "no label rows" in failure.reason


def test_a_name_that_a_face_of_another_video_has_is_a_clash(videos):
    touch(videos, "x.mp4", "x/face0.mp4", "x/face.mp4")
    jobs, (failure,), _ = jobs_of(videos, config=ExtractConfig(face="all"))
    assert [job.trial for job in jobs] == ["x", "x/face"]
    assert failure.video == "x/face0.mp4"
    assert not jobs_of(videos)[1]


def test_crop_folders_name_trials_of_videos_without_labels(videos, tmp_path):
    touch(videos, "video59.mp4", "7.mp4")
    (tmp_path / "crops" / "video59_left").mkdir(parents=True)
    config = ExtractConfig(aligned=True)
    jobs, failures, _ = jobs_of(videos, crops=tmp_path / "crops", config=config)
    found = {job.trial: job.crops for job in jobs}
    assert found == {"7": tmp_path / "crops" / "7", "video59_left": tmp_path / "crops" / "video59_left"}
    assert not failures
    audio_jobs = jobs_of(videos, crops=tmp_path / "crops", config=ExtractConfig(features=("mfcc",), aligned=True))[0]
    assert [job.crops for job in audio_jobs] == [None, None]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere"):
        find_sources(tmp_path / "nowhere", None, None)


@pytest.mark.parametrize("count", [1, 3, *(pytest.param(each, marks=pytest.mark.slow) for each in (2, 7))])
def test_shards_are_disjoint_complete_and_balanced(videos, count):
    for number in range(10):
        (videos / f"{number:02}.mp4").write_bytes(b"x" * (number + 1) * 100)
    jobs, _, _ = jobs_of(videos)
    shards = [shard_of(jobs, index, count) for index in range(count)]
    assert sorted(job.trial for shard in shards for job in shard) == [job.trial for job in jobs]
    loads = [sum(job.size_bytes for job in shard) for shard in shards]
    assert max(loads) - min(loads) <= 1000


def planned(videos, store, config=CONFIG, **selection):
    return make_plan(find_sources(videos, None, None), config, store, Selection(**selection), {})


ARRAYS = {
    "time": np.arange(3.0),
    "face_box": np.ones((3, 4), np.float32),
    "face_landmarks": np.ones((3, 5, 2), np.float32),
    "face_score": np.ones(3, np.float32),
    "fake_face": np.ones((3, 12), np.float32),
    "fake_face_valid": np.ones(3, bool),
    "fake_sound": np.ones((3, 8), np.float32),
    "fake_sound_valid": np.ones(3, bool),
}


def finish(store, path, config=CONFIG, trial=None, **changes):
    entries = entries_for(config.features, asdict(config), {})
    attributes = {"features": entries, "face": "largest", "frames_decoded": 3, "source": source_attributes(path)}
    store.write(trial or path.stem, ARRAYS, {**attributes, **changes})


def test_done_is_left_alone_until_settings_content_or_length_change(videos, tmp_path):
    touch(videos, "a.mp4")
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    assert [job.trial for job in planned(videos, store).jobs] == ["a"]
    finish(store, videos / "a.mp4")
    assert planned(videos, store).done == ("a",)
    assert len(planned(videos, store, replace(CONFIG, audio_align="end")).jobs) == 1
    assert len(planned(videos, store, overwrite=True).jobs) == 1
    labels = annotate(tmp_path / "labels", a=5)
    longer = make_plan(find_sources(videos, labels, None), CONFIG, store, Selection(), {})
    assert [job.length for job in longer.jobs] == [5]
    (videos / "a.mp4").write_bytes(b"A.mp4")  # same size, other content
    assert len(planned(videos, store).jobs) == 1


BOTH = ("fake_face", "fake_sound")
FACE_ANEW = Standing(("fake_face",), adds=True, differences=("face: left in the store, largest now",))


@pytest.mark.parametrize(
    ("changes", "stands"),
    [
        ({"face": "left"}, FACE_ANEW),
        (
            {"frames_decoded": 4},
            Standing(
                BOTH,
                differences=("rows: as many as labels in the store, as frames now (was --annotations forgotten?)",),
            ),
        ),
        ({"source": None}, Standing(BOTH, differences=("made elsewhere: the video it comes from is not recorded",))),
        ({"features": {}}, Standing(BOTH, differences=(UNRECORDED,))),
    ],
)
def test_a_trial_made_in_another_way_is_not_done(videos, tmp_path, changes, stands):
    touch(videos, "a.mp4")
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    finish(store, videos / "a.mp4")
    (job,), _, _ = jobs_of(videos)
    assert standing(store, job, CONFIG, {}) == DONE
    finish(store, videos / "a.mp4", **changes)
    assert standing(store, job, CONFIG, {}) == stands
    assert standing(store, job, CONFIG, {}, overwrite=True) == Standing(BOTH)


@pytest.mark.parametrize(
    ("config", "features", "differences"),
    [
        ({"audio_align": "end"}, ("fake_sound",), ("audio_align: start in the store, end now",)),
        ({"audio_stream": 1}, ("fake_sound",), ("audio_stream: default in the store, 1 now",)),
        ({"missing_face": "zero"}, ("fake_face",), ("missing_face: repeat in the store, zero now",)),
        ({"detect_every": 1}, ("fake_face",), ("detect_every: 30 in the store, 1 now",)),
        ({"precision": "bf16"}, (), ()),
        ({"vggish_output": "relu"}, (), ()),
    ],
)
def test_what_a_feature_does_not_use_never_makes_it_old(videos, tmp_path, config, features, differences):
    touch(videos, "a.mp4")
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    finish(store, videos / "a.mp4")
    (job,), _, _ = jobs_of(videos)
    stands = standing(store, job, replace(CONFIG, **config), {})
    assert (stands.features, stands.differences, stands.lost, stands.adds) == (features, differences, (), True)
    assert stands.keeps_track == (features == ("fake_face",) and "missing_face" in config)


def test_features_that_hang_on_what_would_be_made_anew_are_named(videos, tmp_path):
    """Nothing is left behind of another face track, other frames or another video, whatever is asked for."""
    touch(videos, "a.mp4")
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    finish(store, videos / "a.mp4")
    (job,), _, _ = jobs_of(videos)
    crops = replace(CONFIG, features=("crop48",))
    assert standing(store, job, crops, {}) == Standing(("crop48",), adds=True, keeps_track=True)
    assert standing(store, job, crops, {}, overwrite=True) == Standing(("crop48",), adds=True, keeps_track=True)
    assert standing(store, job, replace(crops, detect_every=1), {}).lost == ("fake_face",)
    assert standing(store, job, replace(crops, video_stream=0), {}).lost == BOTH
    assert standing(store, replace(job, length=5), crops, {}).lost == BOTH
    sound = replace(CONFIG, features=("mfcc",), detect_every=1)
    assert standing(store, job, sound, {}) == Standing(("mfcc",), adds=True)
    (videos / "a.mp4").write_bytes(b"A.mp4")  # same size, other content
    assert standing(store, job, sound, {}) == Standing(("mfcc",), lost=BOTH)
    assert standing(store, job, CONFIG, {}) == Standing(BOTH)


def test_done_with_the_same_crops_alone(videos, tmp_path):
    touch(videos, "a.mp4")
    touch(tmp_path / "crops" / "a", "00001.jpg")
    (job,), _, _ = jobs_of(videos, crops=tmp_path / "crops", config=ExtractConfig(aligned=True))
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    aligned = replace(CONFIG, aligned=True)
    finish(store, videos / "a.mp4", aligned, crops=crops_digest(job.crops))
    assert standing(store, job, aligned, {}) == DONE
    touch(tmp_path / "crops" / "a", "00002.jpg")
    assert standing(store, job, aligned, {}) == Standing(("fake_face",), adds=True)


def test_done_with_every_face_alone(videos, tmp_path):
    touch(videos, "a.mp4")
    (job,), _, _ = jobs_of(videos)
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    everybody = replace(CONFIG, face="all")
    job = replace(job, face="all")
    entries: Any = entries_for(CONFIG.features, asdict(everybody), {})
    attributes: dict[str, Any] = {"features": entries, "frames_decoded": 3, "rows": 3}
    store.write("a", {}, {**attributes, "face": "all", "source": source_attributes(videos / "a.mp4"), "faces": 1})
    assert standing(store, job, everybody, {}) == Standing(BOTH)
    finish(store, videos / "a.mp4", CONFIG, "a/face0")
    assert standing(store, job, everybody, {}) == Standing(BOTH)
    finish(store, videos / "a.mp4", everybody, "a/face0", face="all")
    assert standing(store, job, everybody, {}) == DONE
    assert standing(store, replace(job, face="largest"), CONFIG, {}).differences == (
        "face: all in the store, largest now",
    )
    # Who its trials are hangs on the track too: there may be more or fewer people on another one.
    others = replace(everybody, detect_every=1)
    assert standing(store, job, others, {}) == Standing(BOTH, differences=("detect_every: 30 in the store, 1 now",))
    faces = replace(others, features=("fake_face",))
    assert standing(store, job, faces, {}).lost == ("fake_sound",)
    again = replace(everybody, features=("fake_face",))
    assert standing(store, job, again, {}, overwrite=True) == Standing(("fake_face",), adds=True, keeps_track=True)


def test_a_video_that_cannot_be_read_any_more_does_not_end_the_planning(videos, tmp_path, monkeypatch):
    touch(videos, "a.mp4", "b.mp4")
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    finish(store, videos / "a.mp4")
    (videos / "a.mp4").touch()

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("avfuse.pipeline.runs.plan.sha256_of", refuse)
    assert [job.trial for job in planned(videos, store).jobs] == ["a", "b"]


def test_a_copy_with_another_time_is_still_done(videos, tmp_path):
    touch(videos, "a.mp4")
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    finish(store, videos / "a.mp4")
    (videos / "a.mp4").touch()
    assert planned(videos, store).done == ("a",)


def test_failed_before_waits_for_retry_or_for_a_new_file(videos, tmp_path):
    touch(videos, "a.mp4")
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    status = (videos / "a.mp4").stat()
    append_failure(store, FailureRecord("a.mp4", "probe", "bad", "now", "a", status.st_size, status.st_mtime_ns))
    assert [record.reason for record in planned(videos, store).failed_before] == ["bad"]
    assert len(planned(videos, store, retry_failed=True).jobs) == 1
    (videos / "a.mp4").write_bytes(b"repaired")
    assert len(planned(videos, store).jobs) == 1


def failed(store, path, trial=None, reason="bad"):
    status = path.stat()
    append_failure(
        store, FailureRecord(path.name, "probe", reason, "now", trial or path.stem, status.st_size, status.st_mtime_ns)
    )


def test_overwriting_tries_again_what_failed_before(videos, tmp_path):
    touch(videos, "a.mp4", "b.mp4")
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    failed(store, videos / "a.mp4")
    assert [job.trial for job in planned(videos, store).jobs] == ["b"]
    plan = planned(videos, store, overwrite=True)
    assert [job.trial for job in plan.jobs] == ["a", "b"]
    assert plan.failed_before == ()


def test_what_planning_finds_is_reported_by_the_first_part_alone(videos):
    touch(videos, "a.avi", "a.mp4", "b.mp4")
    parts = [planned(videos, None, shard=(index, 3)) for index in range(3)]
    assert [[failure.video for failure in part.failures] for part in parts] == [["a.mp4"], [], []]
    assert sorted(job.trial for part in parts for job in part.jobs) == ["a", "b"]
    assert {part.trials for part in parts} == {("a", "b")}


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (3, 2), (1, 1), (0, 0)])
def test_a_part_that_is_not_there_is_refused(videos, index, count):
    touch(videos, "a.mp4")
    with pytest.raises(ValueError, match=f"shard I/N needs 0 ≤ I < N, got {index}/{count}"):
        shard_of(jobs_of(videos)[0], index, count)


def test_how_many_failures_the_store_knows_is_in_the_plan(videos, tmp_path):
    touch(videos, "a.mp4", "b.mp4")
    store = FeatureStore(tmp_path / "s.zarr", mode="a")
    assert planned(videos, store).failures_known == planned(videos, None).failures_known == 0
    for name in ("a.mp4", "b.mp4", "a.mp4"):
        failed(store, videos / name)
    assert planned(videos, store).failures_known == planned(videos, store, overwrite=True).failures_known == 3


def test_a_dry_plan_needs_no_store(videos):
    touch(videos, "a.mp4", "b.mp4")
    plan = planned(videos, None, limit=1)
    assert [job.trial for job in plan.jobs] == ["a"]
    assert json.dumps([job.trial for job in plan.jobs]) == '["a"]'
