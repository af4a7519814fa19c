"""One run over everything that is wrong with files: one line each, exit code 3, and every good file is done."""

import json
import os
import re
import shutil
import socket
import subprocess
import threading
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from avfuse.features_store.store import FeatureStore
from avfuse.pipeline.media.probe import probe
from avfuse.pipeline.media.types import MediaError

EXTRACT = ("--features", "iresnet50,mfcc", "--untrained", "1", "--device", "cpu")

# What is bad, and what its reason must say.
BAD = {
    "empty.mp4": "empty",
    "cut.mp4": "moov atom not found|cut",
    "text.mp4": "cannot be read as a video|not a video",
    "audio_only.mp4": "no video stream",
    "no_stream.mp4": "no video stream",
    "no_frames.avi": "not one frame",
    "directory.mp4": "directory",
    "unreadable.mp4": "(?i)permission denied",
    "two\nlines.mp4": "empty",
    "clash.mp4": "same trial 'clash'",
    "hostname.m3u8": "playlist",
    "hostname.avi": "playlist",
    "hostname_concat.mp4": "playlist",
    "list.ffconcat": "playlist",
    "http.m3u8": "playlist",
    "http.avi": "playlist",
    "http_concat.mp4": "playlist",
    "secret.avi": "playlist",
    "secret_concat.mp4": "playlist",
}
ROWS = {
    "a first": 10,
    "with some spaces": 10,
    "ünï — 漢字 ☃": 10,
    "new\nline": 10,
    "-dash": 10,
    "sub folder/clip": 10,
    "clash": 10,
    "surround": 10,
    "silent": 10,
    "one_px": 10,
    "eight_px": 10,
    "~last": 10,
}
PARTLY = "partly"


@dataclass(frozen=True)
class Corpus:
    videos: Path
    store: Path
    visitors: list[object]
    secret: str


@dataclass(frozen=True)
class Ran:
    done: subprocess.CompletedProcess[str]
    store: Path
    files: dict[str, tuple[int, bytes]]


@pytest.fixture(scope="module")
def visitors():
    """The address of a local server, and who has called there."""
    came: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            while True:
                try:
                    connection, address = server.accept()
                except OSError:
                    return
                came.append(address)
                connection.close()

        thread = threading.Thread(target=listen)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", came
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, tiny, visitors, ffmpeg_run):
    root = tmp_path_factory.mktemp("bad")
    folder = root / "videos"
    (folder / "sub folder").mkdir(parents=True)
    make_good(folder, tiny)
    make_bad(folder, tiny, ffmpeg_run)
    # A playlist that were followed would give rows: its target is a sound clip.
    secret = shutil.copy(tiny(), root / "hidden-b2e5c1.bin")
    make_playlists(folder, {"hostname": "/etc/hostname", "http": visitors[0], "secret": secret})
    return Corpus(folder, root / "store.zarr", visitors[1], "hidden-b2e5c1")


def make_good(folder, tiny):
    for name in ROWS:
        shutil.copy(tiny(), folder / f"{name}.mp4")
    (folder / "clash.mp4").unlink()
    for name, clip in (
        ("clash.avi", tiny(".avi", "-c:v", "mpeg4", "-c:a", "pcm_s16le")),
        ("surround.mp4", tiny(".mp4", "-af", "pan=5.1|c0=c0|c1=c0|c2=c0|c3=c0|c4=c0|c5=c0", "-c:a", "aac")),
        ("silent.mp4", tiny(sound=False)),
        ("one_px.mkv", tiny(".mkv", "-pix_fmt", "bgr0", "-vf", "crop=1:1", "-c:v", "ffv1", "-c:a", "pcm_s16le")),
        ("eight_px.mp4", tiny(size="8x8")),
    ):
        Path(folder / name).with_suffix(".mp4").unlink(missing_ok=True)
        shutil.copy(clip, folder / name)
    whole = tiny(".mpg", "-c:v", "mpeg1video", "-r", "25", "-c:a", "mp2", "-qscale:v", "1", seconds=2).read_bytes()
    (folder / f"{PARTLY}.mpg").write_bytes(whole[: len(whole) * 6 // 10])


def make_bad(folder, tiny, ffmpeg_run):
    (folder / "empty.mp4").touch()
    (folder / "two\nlines.mp4").touch()
    whole = tiny().read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.mp4").write_text("What ffmpeg takes for no film.\n" * 40)
    (folder / "directory.mp4").mkdir()
    shutil.copy(tiny(), folder / "clash.mp4")
    shutil.copy(tiny(), folder / "unreadable.mp4")
    (folder / "unreadable.mp4").chmod(0)
    picture = ["-f", "lavfi", "-i", "testsrc=s=64x64:r=10:d=1"]
    sound = ["-f", "lavfi", "-i", "sine=d=1"]
    ffmpeg_run(*sound, "-vn", folder / "audio_only.mp4")
    ffmpeg_run(*picture, "-frames:v", "0", folder / "no_stream.mp4")
    ffmpeg_run(*picture, *sound, "-frames:v", "0", folder / "no_frames.avi")


def make_playlists(folder, targets):
    def hls(target):
        return f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{target}\n#EXT-X-ENDLIST\n"

    def concat(target):
        return f"ffconcat version 1.0\nfile '{target}'\n"

    for name, write, target in (
        ("hostname.m3u8", hls, "hostname"),
        ("hostname.avi", hls, "hostname"),
        ("hostname_concat.mp4", concat, "hostname"),
        ("list.ffconcat", concat, "hostname"),
        ("http.m3u8", hls, "http"),
        ("http.avi", hls, "http"),
        ("http_concat.mp4", concat, "http"),
        ("secret.avi", hls, "secret"),
        ("secret_concat.mp4", concat, "secret"),
    ):
        (folder / name).write_text(write(targets[target]))


@pytest.fixture(scope="module")
def first(cli, corpus, plain_user, snapshot):
    words = ("extract", "--videos", corpus.videos, "--store", corpus.store, *EXTRACT)
    done = cli.run(*words, prefix=plain_user)
    return Ran(done, corpus.store, snapshot(corpus.store))


@pytest.fixture(scope="module")
def second(cli, corpus, plain_user, snapshot, first):
    words = ("extract", "--videos", corpus.videos, "--store", corpus.store, *EXTRACT)
    done = cli.run(*words, prefix=plain_user)
    return Ran(done, corpus.store, snapshot(corpus.store))


def test_bad_files_do_not_end_the_run(first):
    assert first.done.returncode == 3, first.done.stderr
    assert first.done.stdout == ""
    assert "Traceback" not in first.done.stderr
    assert not re.search(r"\wWarning:", first.done.stderr)


def test_every_good_file_is_extracted(first):
    store = FeatureStore(first.store)
    assert store.trials() == sorted([*ROWS, PARTLY])
    for name, rows in ROWS.items():
        assert store[name].rows == rows, name
        assert store[name].attributes["truncated"] is False, name
        assert np.isfinite(store[name]["mfcc"][:]).all(), name
    assert store.incomplete() == []


def test_one_line_for_each_bad_file(first, failures):
    records = failures(first.store)
    assert sorted(record["video"] for record in records) == sorted(BAD)
    for record in records:
        assert {"video", "stage", "reason", "time"} <= set(record)
        assert record["stage"]
        assert datetime.fromisoformat(record["time"]).tzinfo is not None


@pytest.mark.parametrize("video", BAD, ids=repr)
def test_the_reason_names_what_is_wrong(first, failures, video):
    (reason,) = [record["reason"] for record in failures(first.store) if record["video"] == video]
    assert re.search(BAD[video], reason)
    assert "Traceback" not in reason
    assert 0 < len(reason) < 400


def test_the_reason_is_one_line(first, failures):
    wrong = [record["video"] for record in failures(first.store) if len(record["reason"].splitlines()) != 1]
    assert wrong == []


@pytest.mark.parametrize("run", ["first", "second"])
def test_failures_are_named_at_the_end(request, run):
    *lines, last = request.getfixturevalue(run).done.stderr.splitlines()
    if "--retry-failed tries them again" in lines[-1]:
        lines.pop()
    named = [line for line in lines[-len(BAD) :] if line.startswith("failed: ")]
    assert len(named) == len(BAD)
    for video in BAD:
        assert any(" ".join(video.split()) in line for line in named), video
    assert f"{len(BAD)} failed" in last


def test_nothing_is_fetched_or_leaked(first, second, corpus):
    assert corpus.visitors == []
    errors = (ran.done.stderr.encode("utf-8", "surrogateescape") for ran in (first, second))
    said = b"\n".join([*errors, *(content for _, content in second.files.values())])
    assert b"hidden-b2e5c1" not in said
    assert b"127.0.0.1" not in said
    hostname = Path("/etc/hostname").read_bytes().strip() if Path("/etc/hostname").exists() else b""
    if len(hostname) > len("localhost"):
        assert hostname not in said


def test_a_second_run_does_nothing(first, second):
    assert second.done.returncode == 3
    assert "Traceback" not in second.done.stderr
    assert "0 videos to do" in second.done.stderr
    trials = {name: seen for name, seen in first.files.items() if "/" in name}
    assert {name: seen for name, seen in second.files.items() if "/" in name} == trials


def test_a_second_run_adds_no_lines(first, second):
    assert second.files["failures.jsonl"] == first.files["failures.jsonl"]


def test_a_file_that_decodes_in_part_keeps_its_rows(first):
    trial = FeatureStore(first.store)[PARTLY]
    assert trial.attributes["truncated"] is True
    assert 5 < trial.rows < 50
    assert trial.attributes["frames_decoded"] == trial.rows
    assert f"warning: {PARTLY}: the picture ended in an error after {trial.rows} frames" in first.done.stderr


def test_without_audio_there_are_rows(first):
    trial = FeatureStore(first.store)["silent"]
    assert trial.attributes["audio"] == "absent"
    assert not np.asarray(trial["mfcc"][:]).any()
    assert not trial.valid("mfcc").any()
    assert "warning: silent: no audio" in first.done.stderr


@pytest.mark.parametrize("name", ["one_px", "eight_px", "a first", "silent"])
def test_without_a_face_there_are_rows(first, name):
    trial = FeatureStore(first.store)[name]
    assert not np.asarray(trial["iresnet50"][:]).any()
    assert not trial.valid("iresnet50").any()
    assert np.isnan(trial["face_box"][:]).all()
    assert not np.asarray(trial["face_score"][:]).any()
    assert f"warning: {name}: no face in any frame" in first.done.stderr


def test_surround_sound_is_sound(first):
    store = FeatureStore(first.store)
    assert store["surround"].attributes["audio"] == "present"
    assert store["surround"].valid("mfcc").any()
    assert np.abs(store["surround"]["mfcc"][:5]).max() > 1


def test_the_store_is_sound(first, invoke):
    done = invoke("verify", "--store", first.store)
    assert done.exit_code == 0, done.stdout
    assert done.stdout.startswith(f"{len(ROWS) + 1} trials")
    assert "UNTRAINED" in done.stderr  # every later command says so
    assert not {name for name in first.files if name.startswith((".tmp", ".claims"))}


def test_names_are_whole_in_the_machine_readable_summary(second, invoke):
    done = invoke("status", "--store", second.store, "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert sorted(record["video"] for record in found["failed"]) == sorted(BAD)
    assert found["trials"] == len(ROWS) + 1


def test_a_mended_file_is_picked_up(invoke, videos, tmp_path, failures):
    folder, store = videos("good.mp4", "mended.mp4"), tmp_path / "s.zarr"
    (folder / "bad.mp4").write_text("no film")
    (folder / "mended.mp4").write_text("no film either")
    words = ("extract", "--videos", folder, "--store", store, "--features", "mfcc")
    assert invoke(*words).exit_code == 3
    assert FeatureStore(store).trials() == ["good"]
    before = failures(store)
    videos("mended.mp4")
    result = invoke(*words)
    assert result.exit_code == 3
    assert "1 video to do, 1 done before, 1 failed" in result.stderr
    assert FeatureStore(store).trials() == ["good", "mended"]
    assert failures(store) == before
    (folder / "bad.mp4").unlink()
    assert invoke(*words).exit_code == 0


def test_retry_failed_tries_again(invoke, videos, tmp_path, failures):
    folder, store = videos("good.mp4"), tmp_path / "s.zarr"
    (folder / "bad.mp4").write_text("no film")
    (folder / "worse.mp4").touch()
    words = ("extract", "--videos", folder, "--store", store, "--features", "mfcc")
    assert invoke(*words).exit_code == 3
    result = invoke(*words)
    assert result.exit_code == 3
    assert "--retry-failed" in result.stderr
    assert len(failures(store)) == 2
    assert invoke(*words, "--retry-failed").exit_code == 3
    assert [record["video"] for record in failures(store)] == ["bad.mp4", "worse.mp4"] * 2


@pytest.mark.parametrize("run", [1, 2])
def test_a_link_to_nowhere_is_a_failure_in_every_run(invoke, videos, tmp_path, failures, run):
    folder, store = videos("good.mp4"), tmp_path / "s.zarr"
    (folder / "link.mp4").symlink_to("nowhere.mp4")
    words = ("extract", "--videos", folder, "--store", store, "--features", "mfcc")
    codes = [invoke(*words).exit_code for _ in range(run)]
    assert codes == [3] * run
    (record,) = failures(store)
    assert "No such file" in record["reason"]


def test_a_name_that_is_no_unicode_ends_no_run(invoke, videos, tmp_path, failures):
    """Files from old discs: either it is extracted, or the reason is the name."""
    folder, store = videos("caf\udce9.mp4", "good.mp4"), tmp_path / "s.zarr"
    result = invoke("extract", "--videos", folder, "--store", store, "--features", "mfcc")
    if result.exit_code == 0:
        assert FeatureStore(store).trials() == ["caf\udce9", "good"]
    else:
        (record,) = failures(store)
        assert "rename" in record["reason"]


@pytest.mark.timeout(5)
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(MediaError, match="is not a file"):
        probe(tmp_path / "pipe.mp4")


def test_a_folder_that_cannot_be_read_is_told(cli, videos, tmp_path, plain_user):
    folder = videos("good.mp4", "locked/hidden.mp4")
    (folder / "locked").chmod(0)
    words = ("extract", "--videos", folder, "--store", tmp_path / "s", "--features", "mfcc", "--dry-run")
    done = cli.run(*words, prefix=plain_user)
    (folder / "locked").chmod(0o755)
    assert "locked" in done.stderr
