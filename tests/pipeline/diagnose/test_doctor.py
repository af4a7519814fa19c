"""What `doctor` finds, and how to fix it."""

from click.testing import CliRunner

from avfuse.cli import main
from avfuse.pipeline.diagnose.doctor import examine, summed_up


def test_doctor_says_what_works(tmp_path):
    findings = {finding.what: finding for finding in examine(tmp_path / "not" / "there")}
    assert findings["ffmpeg"].ok
    assert findings["decoders"].ok
    assert str(tmp_path) in findings["writable"].found
    assert not findings["weights suzhang-ir50"].ok
    assert "by hand" in findings["weights suzhang-ir50"].fix


def test_doctor_sums_up(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("AVFUSE_WEIGHTS", str(tmp_path))
    (tmp_path / "vggish-10086976.pth").write_bytes(b"half of it")
    (tmp_path / "iresnet50.pth").write_bytes(b"no network")
    findings = {finding.what: finding for finding in examine(tmp_path)}
    assert findings["AVFUSE_WEIGHTS"].found == str(tmp_path)
    assert f"{tmp_path / 'vggish-10086976.pth'} is damaged" in findings["weights vggish"].found
    assert f"{tmp_path / 'iresnet50.pth'}: " in findings["usual features"].found
    assert {"extra onnx", "extra parquet", "extra tensorboard"} < findings.keys()
    said = summed_up(list(findings.values()))
    assert said.startswith(f"extract cannot start: usual features: {tmp_path / 'iresnet50.pth'}: ")
    assert summed_up([finding for finding in findings.values() if finding.ok]) == "everything extract needs is here"
    monkeypatch.setenv("AVFUSE_WEIGHTS", str(tmp_path / "missing"))
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert f"AVFUSE_WEIGHTS={tmp_path / 'missing'} is not a folder" in result.stderr


def test_doctor_says_how_to_fix_it_when_ffmpeg_is_missing(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 1
    assert "apt-get install ffmpeg" in result.output
