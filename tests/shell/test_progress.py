import io

from avfuse.shell import progress


def test_lines_off_a_terminal(monkeypatch):
    """None within 30 s; then one each time they have passed."""
    stream = io.StringIO()
    assert list(progress.shown(["a", "b"], "reading", stream)) == ["a", "b"]
    assert stream.getvalue() == ""
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    assert list(progress.shown(["a", "b"], "reading", stream)) == ["a", "b"]
    assert stream.getvalue() == "reading: 0 of 2 trials\nreading: 1 of 2 trials\n"


def test_silence():
    assert list(progress.silent(["a", "b"], "reading")) == ["a", "b"]
