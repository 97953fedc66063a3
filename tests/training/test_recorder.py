"""The breakdown of a step's time, with a simulated clock."""

import pytest

from ringrl.training import recorder as recorder_module
from ringrl.training.config import TrainingConfig
from ringrl.training.recorder import Recorder


class Clock:
    """A clock that is advanced explicitly."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now

    def spend(self, seconds):
        self.now += seconds


class Progress:
    """A progress bar that stores its last update."""

    def update(self, *said):
        self.said = said


class Logs:
    """A logger that stores its input."""

    def __init__(self):
        self.seen = []

    def scalars(self, values, step):
        self.seen.append((step, values))

    def histograms(self, tree, step, prefix=""):
        raise AssertionError("nobody asked")


@pytest.fixture
def clock(monkeypatch):
    """Moves by itself only while the host waits for a step: 0.5 s each time."""
    clock = Clock()
    monkeypatch.setattr(recorder_module, "time", clock)

    def wait(metrics):
        clock.spend(0.5)
        return metrics

    monkeypatch.setattr(recorder_module.jax, "device_get", wait)
    return clock


def recorder_of(logs, **training):
    config = TrainingConfig(**{"steps": 100, "log_every": 4, **training})
    return Recorder(config, Progress(), logs, tokens=1000, flops=3e6, peak_flops=6e6)  # type: ignore[arg-type]


def step(recorder, clock, number, loader=2.0, dispatch=0.25, rest=0.125):
    with recorder.waiting():
        clock.spend(loader)
    with recorder.dispatching():
        clock.spend(dispatch)
    recorder.add(number, {"loss": 1.0, "skipped_in_row": 0})
    clock.spend(rest)


def times(values):
    return {tag.removeprefix("time/"): value for tag, value in values.items() if tag.startswith("time/")}


def test_the_seconds_of_a_step_are_told_apart_and_sum_up(clock):
    logs = Logs()
    recorder = recorder_of(logs)
    for number in range(1, 11):
        step(recorder, clock, number)
    assert [seen for seen, _ in logs.seen] == [4, 8]
    first, second = (values for _, values in logs.seen)
    # The report of step 8 falls into step 9, as that of step 4 into step 5: four steps of everything.
    expected = {"loader_wait": 2.0, "dispatch": 0.25, "device_wait": 0.5, "other": 0.125, "step": 2.875}
    assert times(second) == pytest.approx(expected)
    for values in (first, second):
        parts = times(values)
        assert parts.pop("step") == pytest.approx(sum(parts.values()))
    assert second["throughput/steps_per_second"] == pytest.approx(1 / 2.875)
    assert second["throughput/tokens_per_second"] == pytest.approx(1000 / 2.875)
    assert second["throughput/model_flops_per_second"] == pytest.approx(3e6 / 2.875)
    assert second["throughput/mfu"] == pytest.approx(0.5 / 2.875)
    assert second["throughput/loader_wait"] == pytest.approx(2.0 / 2.875)
    assert second["memory/host_resident"] > 0


def test_pauses_are_no_part_of_a_step(clock):
    plain, paused = Logs(), Logs()
    for logs, pause in ((plain, 0.0), (paused, 1000.0)):
        recorder = recorder_of(logs)
        for number in range(1, 6):
            step(recorder, clock, number)
            with recorder.pause():
                clock.spend(pause)
    assert times(paused.seen[0][1]) == pytest.approx(times(plain.seen[0][1]))


def test_the_last_step_is_told_of_whatever_the_window(clock):
    logs = Logs()
    recorder = recorder_of(logs, steps=6)
    for number in range(1, 7):
        step(recorder, clock, number)
    recorder.flush()
    assert [seen for seen, _ in logs.seen] == [4, 6]
    assert times(logs.seen[1][1])["device_wait"] == pytest.approx(0.5)


def test_a_resumed_run_counts_its_own_steps(clock):
    logs = Logs()
    recorder = recorder_of(logs)
    for number in range(11, 14):
        step(recorder, clock, number)
    [(seen, values)] = logs.seen
    assert seen == 12
    assert times(values)["device_wait"] == pytest.approx(0.5)
