"""The circuit: opens after failures in a row, lets one probe pass after a growing pause, closes on an answer."""

import pytest
from structlog.testing import capture_logs

from cqrskit.elasticsearch.circuit import Circuit
from cqrskit.errors import ServerUnavailable


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def circuit(clock: Clock) -> Circuit:
    return Circuit("es:9200", failures_max=3, pause_seconds_max=8.0, clock=clock)


def fail(circuit: Circuit, times: int = 1) -> None:
    for _ in range(times):
        circuit.enter()
        circuit.failed("refused")


def wait(circuit: Circuit, clock: Clock) -> float:
    pause = circuit.pause_seconds_left
    clock.now += pause
    return pause


def test_it_stays_closed_as_long_as_some_requests_are_answered(circuit: Circuit) -> None:
    for _ in range(10):
        fail(circuit, 2)
        circuit.enter()
        circuit.answered()
    assert (circuit.state, circuit.failures, circuit.reason) == ("closed", 0, None)


def test_after_failures_in_a_row_requests_fail_at_once_and_are_told_why_and_until_when(circuit: Circuit) -> None:
    fail(circuit, 3)
    assert circuit.state == "open"
    assert 0.25 <= circuit.pause_seconds_left <= 0.5
    with pytest.raises(ServerUnavailable, match=r"Elasticsearch at es:9200.*3 requests.*in 0\.\d s.*last: refused"):
        circuit.enter()


def test_after_the_pause_one_probe_passes_and_the_others_wait_for_its_end(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 3)
    wait(circuit, clock)
    circuit.enter()
    assert str(circuit.state) == "half-open"
    with pytest.raises(ServerUnavailable):
        circuit.enter()
    circuit.answered()
    circuit.enter()
    assert circuit.state == "closed"


def test_pauses_double_up_to_the_longest_and_differ_between_processes(clock: Clock) -> None:
    circuit = Circuit("es:9200", failures_max=1, pause_seconds_max=8.0, clock=clock)
    pauses = []
    for _ in range(60):
        fail(circuit)
        pauses.append(wait(circuit, clock))
    for pause, longest in zip(pauses, [0.5, 1.0, 2.0, 4.0, *[8.0] * 56], strict=True):
        assert longest / 2 <= pause <= longest
    assert len(set(pauses)) == len(pauses)


def test_a_probe_that_was_given_up_leaves_its_place_to_the_next(circuit: Circuit, clock: Clock) -> None:
    fail(circuit, 3)
    wait(circuit, clock)
    circuit.enter()
    circuit.left()
    circuit.enter()
    assert circuit.state == "half-open"


def test_requests_that_were_on_their_way_when_it_opened_do_not_lengthen_the_pause(circuit: Circuit) -> None:
    for _ in range(20):
        circuit.enter()
    for _ in range(20):
        circuit.failed("refused")
    assert circuit.pause_seconds_left <= 0.5


def test_every_change_of_state_is_logged_once(circuit: Circuit, clock: Clock) -> None:
    with capture_logs() as logs:
        fail(circuit, 3)
        wait(circuit, clock)
        fail(circuit)
        wait(circuit, clock)
        circuit.enter()
        circuit.answered()
        circuit.enter()
        circuit.answered()
    assert [entry["event"].rpartition(".")[2] for entry in logs] == [
        "circuit_opened",
        "circuit_half_open",
        "circuit_opened",
        "circuit_half_open",
        "circuit_closed",
    ]
