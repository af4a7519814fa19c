"""`avfuse bench` measures every stage on a real clip and says which one limits."""

import json

import pytest

from avfuse.pipeline.diagnose.bench import Speeds, StageSpeed, speed_lines


@pytest.mark.slow
def test_bench_names_every_stage_and_the_slowest(media, avfuse):
    result = avfuse("bench", media / "real" / "grid_brbk7n.mpg", "--seconds", 0.4, "--json", "--batch-size", 8)
    figures = json.loads(result.stdout)
    assert [stage["stage"] for stage in figures["stages"]] == ["decode", "detect", "sound", "embed", "write"]
    assert all(stage["frames_per_s"] > 0 for stage in figures["stages"])
    assert 10 <= figures["frames"] <= 20
    assert figures["end_to_end"] > 0
    slowest = min(figures["stages"], key=lambda stage: stage["frames_per_s"])
    assert figures["limited_by"] == slowest["stage"]


@pytest.mark.parametrize(("on_gpu", "bound"), [(True, 100.0), (False, 80.0)])
def test_what_the_stages_allow(on_gpu, bound):
    speeds = Speeds(50, (StageSpeed("decode", 400.0), StageSpeed("embed", 100.0)), 72.0, on_gpu)
    assert speeds.bound == pytest.approx(bound)
    assert speeds.limit.stage == "embed"
    assert list(speed_lines(speeds))[-1].startswith(f"limited by embed; end to end is {72 / bound:.2f} of")
