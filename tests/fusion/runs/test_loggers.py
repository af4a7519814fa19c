"""What is seen of a run: plain lines where nobody watches, a bar on a terminal, events for TensorBoard."""

import io
from importlib.util import find_spec

import pytest

from avfuse.fusion.runs.loggers import Bar, Lines, TensorBoard, make_watchers, wants_tensorboard

ROW = {"epoch": 2, "lr": 1e-4, "loss": 1.25, "P": 0.5, "ccc_valence": 0.4, "ccc_arousal": 0.6}
BEST = {"epoch": 1, "P": 0.55}


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Loss:
    """Counts how often it is asked for."""

    def __init__(self):
        self.asked = 0

    def __call__(self):
        self.asked += 1
        return 1.5


class TestLines:
    def test_nothing_within_30_s(self):
        stream, loss = io.StringIO(), Loss()
        lines = Lines("fold 0", 9, stream)
        for step in range(50):
            lines.step(1, step, 50, loss)
        lines.epoch(ROW, BEST)
        lines.close()
        assert stream.getvalue() == ""
        assert loss.asked == 0

    def test_a_line_when_time_has_passed(self, monkeypatch):
        stream, loss = io.StringIO(), Loss()
        lines = Lines("fold 0", 9, stream)
        monkeypatch.setattr("avfuse.shell.progress.LINE_EVERY_S", 0.0)
        lines.step(2, 3, 50, loss)
        lines.epoch(ROW, BEST)
        assert stream.getvalue() == (
            "fold 0 epoch 2/9: batch 4/50, loss 1.500\n"
            "fold 0 epoch 2/9: loss 1.250, P 0.500 (V 0.400, A 0.600), best 0.550 (epoch 1)\n"
        )
        assert loss.asked == 1

    def test_a_task_that_is_not_trained(self, monkeypatch):
        stream = io.StringIO()
        lines = Lines("fold 0", 9, stream)
        monkeypatch.setattr("avfuse.shell.progress.LINE_EVERY_S", 0.0)
        lines.epoch({**ROW, "ccc_arousal": None}, BEST)
        assert "(V 0.400, A –)" in stream.getvalue()


class TestBar:
    def test_epoch_and_scores(self, monkeypatch):
        monkeypatch.setenv("COLUMNS", "200")  # room for any number of batches a second
        monkeypatch.setenv("LINES", "50")
        stream = Terminal()
        bar = Bar("fold 0", 9, stream)
        for epoch in (1, 2):
            for step in range(4):
                bar.step(epoch, step, 4, Loss())
            bar.epoch(ROW, BEST)
        bar.close()
        said = stream.getvalue()
        assert "\r" in said
        assert "fold 0 epoch 2/9" in said
        assert "P 0.500, best 0.550 (epoch 1)" in said
        assert "4/4" in said
        assert said.endswith("\r")  # nothing of the bar is left

    def test_the_first_second_shows_something_and_promises_nothing(self):
        stream = Terminal()
        bar = Bar("fold 0", 9, stream)
        assert stream.getvalue().strip() == "fold 0: starting"
        bar.step(1, 0, 40, Loss())
        first = stream.getvalue().rpartition("\r")[2]
        assert "fold 0 epoch 1/9" in first
        assert "1/40" in first
        assert "<?, ?batch/s" in first  # of one batch that has ended no rate is known
        bar.close()

    def test_the_device_is_not_asked_at_each_step(self):
        """Asking for the loss waits for the device."""
        bar, loss = Bar("fold 0", 9, Terminal()), Loss()
        for step in range(200):
            bar.step(1, step, 200, loss)
        bar.close()
        assert 1 <= loss.asked < 20


class TestMakeWatchers:
    def test_a_bar_on_a_terminal_only(self, tmp_path):
        for stream, redrawn in ((Terminal(), True), (io.StringIO(), False)):
            (watcher,) = make_watchers("fold 0", 9, tmp_path, False, stream)
            for step in range(3):
                watcher.step(1, step, 3, Loss())
            watcher.epoch(ROW, BEST)
            watcher.close()
            assert ("\r" in stream.getvalue()) == redrawn
        assert list(tmp_path.iterdir()) == []

    def test_events(self, tmp_path):
        pytest.importorskip("tensorboard", reason="an extra")
        for watcher in make_watchers("fold 0", 9, tmp_path, True, io.StringIO()):
            watcher.epoch({**ROW, "ccc_arousal": None}, BEST)
            watcher.close()
        (path,) = (tmp_path / "tensorboard").iterdir()
        written = path.read_bytes()
        assert b"ccc_valence" in written
        assert b"ccc_arousal" not in written

    def test_events_go_on_after_a_resume(self, tmp_path):
        pytest.importorskip("tensorboard", reason="an extra")
        for epoch in (1, 2):
            board = TensorBoard(tmp_path)
            board.epoch({**ROW, "epoch": epoch}, BEST)
            board.close()
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(tmp_path)).Reload()
        assert [scalar.step for scalar in events.Scalars("P")] == [1, 2]


def test_wants_tensorboard():
    assert wants_tensorboard(True)
    assert not wants_tensorboard(False)
    assert wants_tensorboard(None) == (find_spec("tensorboard") is not None)
