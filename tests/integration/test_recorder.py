"""Applications of the eventsourcing library on cqrskit's log: beside its executor, and through lost connections."""

import asyncio
import json
import threading
import zlib
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from eventsourcing.application import AggregateNotFoundError
from eventsourcing.persistence import (
    DataError,
    IntegrityError,
    NotSupportedError,
    OperationalError,
    StoredEvent,
    Subscription,
)
from eventsourcing.projection import EventSourcedProjectionRunner, ProjectionRunner

from cqrskit import CommandResult, Settings
from cqrskit.errors import ConfigurationError, MigrationRequired
from cqrskit.postgres.recorder import Factory, LogRecorder
from cqrskit.postgres.recorder_database import RecorderDatabase
from cqrskit.testing.servers import PostgresServer
from tests.contract.shipped_recorder_cases import SealingCipher
from tests.integration.counting import Grow, opened
from tests.integration.running_processes import cqrskit
from tests.integration.school import Diplomas, School, Tricks, TricksView

MODULE = "cqrskit.postgres.recorder"


def variables(dsn: str, **more: str) -> dict[str, str]:
    return {"PERSISTENCE_MODULE": MODULE, "POSTGRES_URL": dsn, **more}


@pytest.fixture
def recorder(postgres_dsn: str) -> Iterator[LogRecorder]:
    with closing(Factory(variables(postgres_dsn))) as factory:
        yield factory.application_recorder()


def events_of(*stream_ids: UUID, version: int = 1) -> list[StoredEvent]:
    return [StoredEvent(stream_id, version, "topic", b"{}") for stream_id in stream_ids]


@contextmanager
def given_up_in_time(subscription: Subscription[Any]) -> Iterator[None]:
    """A subscription that yields nothing ends, so that the test fails in place of waiting for ever."""
    timer = threading.Timer(30, subscription.stop)
    timer.start()
    yield
    timer.cancel()


def rows(dsn: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(query.encode()).fetchall()


async def test_a_saved_aggregate_is_in_the_log_beside_the_executors_events(postgres_dsn: str) -> None:
    async with opened(Settings(database_url=postgres_dsn)) as runtime:
        with School(variables(postgres_dsn)) as school:
            dog_id = await asyncio.to_thread(school.register, "Fido")
            await runtime.executor.execute(Grow(counter_id=uuid4()))
            position = await asyncio.to_thread(school.add_trick, dog_id, "roll over")
            assert school.tricks_of(dog_id) == ["roll over"]
        block = await runtime.event_store.read(0, 10)
    assert position == 4
    assert [(event.position, event.type) for event in block.events] == [
        (1, "tests.integration.school:Dog.Registered"),
        (2, "Counter.Started"),
        (3, "Counter.Grown"),
        (4, "tests.integration.school:Dog.TrickAdded"),
    ]
    assert [event.stream_version for event in block.events if event.stream_id == dog_id] == [1, 2]
    assert {event.metadata for event in block.events if event.stream_id == dog_id} == {b"{}"}


async def test_a_follower_sees_each_position_once_in_order_while_both_kinds_write(postgres_dsn: str) -> None:
    writers, appends, commands = 4, 25, 100

    def write_stored_events(recorder: LogRecorder) -> int:
        return sum(len(recorder.insert_events(events_of(*(uuid4() for _ in range(5)))) or []) for _ in range(appends))

    seen: list[int] = []

    def follow(recorder: LogRecorder, last: int) -> None:
        with recorder.subscribe(gt=0) as subscription, given_up_in_time(subscription):
            for notification in subscription:
                seen.append(notification.id)
                if notification.id >= last:
                    break

    last = writers * appends * 5 + commands * 2
    with closing(Factory(variables(postgres_dsn))) as first, closing(Factory(variables(postgres_dsn))) as second:
        recorders = [first.application_recorder(), second.application_recorder()]
        with ThreadPoolExecutor(writers + 1) as threads:
            following = threads.submit(follow, recorders[0], last)
            writing = [threads.submit(write_stored_events, recorders[number % 2]) for number in range(writers)]
            async with opened(Settings(database_url=postgres_dsn)) as runtime:
                for _ in range(commands // 10):
                    results = await runtime.executor.execute_many([Grow(counter_id=uuid4()) for _ in range(10)])
                    assert all(isinstance(result, CommandResult) for result in results)
            assert sum([await asyncio.wrap_future(each) for each in writing]) == writers * appends * 5
            await asyncio.wrap_future(following)
    assert seen == list(range(1, last + 1))
    assert rows(postgres_dsn, "SELECT max(position), count(*) FROM events") == [(last, last)]


def test_an_append_waits_for_the_one_that_holds_the_log_and_gets_the_positions_after_it(
    postgres_dsn: str, recorder: LogRecorder
) -> None:
    with psycopg.connect(postgres_dsn) as slow, ThreadPoolExecutor(1) as threads:
        slow.execute("UPDATE log_head SET position = position + 1")
        waiting = threads.submit(recorder.insert_events, events_of(uuid4(), uuid4()))
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        assert recorder.max_notification_id() is None
        slow.execute("INSERT INTO events VALUES (1, gen_random_uuid(), 1, 'slow', '{}', '{}', now())")
        slow.commit()
        assert waiting.result(timeout=30) == [2, 3]


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "not committed"])
def test_a_commit_whose_answer_is_lost_is_looked_up_and_counts_once(
    recorder: LogRecorder, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    commit = RecorderDatabase.commit
    lost: list[bool] = []

    def lose_the_first_answer(self: RecorderDatabase, connection: Any) -> None:
        if not lost:
            lost.append(True)
            if committed:
                commit(self, connection)
            connection.close()
        commit(self, connection)

    monkeypatch.setattr(RecorderDatabase, "commit", lose_the_first_answer)
    events = events_of(uuid4(), uuid4())
    assert recorder.insert_events(events) == [1, 2]
    assert lost
    assert [each.id for each in recorder.select_notifications(None, 10)] == [1, 2]


def test_a_commit_that_cannot_be_looked_up_is_reported_as_unknown_and_not_tried_again(
    postgres_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = RecorderDatabase.commit

    def lose_the_answer(self: RecorderDatabase, connection: Any) -> None:
        commit(self, connection)
        self._pool.close()
        raise OperationalError("cut")

    monkeypatch.setattr(RecorderDatabase, "commit", lose_the_answer)
    with (
        closing(Factory(variables(postgres_dsn))) as factory,
        pytest.raises(OperationalError, match="not known whether it took effect"),
    ):
        factory.application_recorder().insert_events(events_of(uuid4()))
    assert rows(postgres_dsn, "SELECT count(*) FROM events") == [(1,)]


def test_connections_that_the_server_ended_are_replaced(postgres_dsn: str, recorder: LogRecorder) -> None:
    stream_id = uuid4()
    with recorder.subscribe(gt=0) as subscription, given_up_in_time(subscription):
        recorder.insert_events(events_of(stream_id))
        assert next(subscription).id == 1
        rows(
            postgres_dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        assert recorder.insert_events(events_of(stream_id, version=2)) == [2]
        assert next(subscription).id == 2
    assert [each.originator_version for each in recorder.select_events(stream_id)] == [1, 2]


def test_a_conflict_leaves_no_gap(recorder: LogRecorder) -> None:
    taken, other = uuid4(), uuid4()
    recorder.insert_events(events_of(taken))
    with pytest.raises(IntegrityError, match="events_stream_version_key"):
        recorder.insert_events(events_of(other, taken))
    assert recorder.insert_events(events_of(other)) == [2]
    assert recorder.max_notification_id() == 2


def test_followers_are_woken_after_the_commit(postgres_dsn: str, recorder: LogRecorder) -> None:
    with psycopg.connect(postgres_dsn, autocommit=True) as listener:
        listener.execute("LISTEN cqrskit_log")
        recorder.insert_events(events_of(uuid4()))
        assert [each.channel for each in listener.notifies(timeout=10, stop_after=1)] == ["cqrskit_log"]


def test_a_subscription_without_wake_ups_looks_by_the_clock(
    postgres_dsn: str, recorder: LogRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder.database, "grown", lambda: None)
    with recorder.subscribe(gt=None) as subscription, given_up_in_time(subscription):
        for position in (1, 2, 3):
            recorder.insert_events(events_of(uuid4()))
            assert next(subscription).id == position


@pytest.mark.parametrize("versions", [[-1], [2**31], [1, -1]])
def test_versions_that_do_not_fit_are_refused_before_anything_is_written(
    recorder: LogRecorder, versions: list[int]
) -> None:
    stream_id = uuid4()
    with pytest.raises(DataError, match="versions go from 0"):
        recorder.insert_events([StoredEvent(stream_id, version, "topic", b"") for version in versions])
    assert recorder.max_notification_id() is None


def test_originators_that_are_not_named_by_a_uuid_are_refused(recorder: LogRecorder) -> None:
    with pytest.raises(NotSupportedError, match=r"'dog-1' is a str.*uuid\.uuid5"):
        recorder.insert_events([StoredEvent("dog-1", 1, "topic", b"")])
    with pytest.raises(NotSupportedError):
        recorder.select_events(str(uuid4()))


def test_snapshots_are_kept_beside_the_log_and_used(postgres_dsn: str) -> None:
    with School(variables(postgres_dsn)) as school:
        dog_id = school.register("Fido")
        for trick in ("sit", "roll over", "fetch"):
            school.add_trick(dog_id, trick)
        assert school.snapshots is not None
        assert [each.originator_version for each in school.snapshots.get(dog_id)] == [2, 4]
    assert rows(postgres_dsn, "SELECT count(*) FROM events") == [(4,)]
    with School(variables(postgres_dsn)) as again:
        assert again.tricks_of(dog_id) == ["sit", "roll over", "fetch"]
        with pytest.raises(AggregateNotFoundError):
            again.tricks_of(uuid4())


async def test_compressed_and_encrypted_events_are_kept_and_people_see_the_rows_beside_them(postgres_dsn: str) -> None:
    hidden = variables(
        postgres_dsn,
        COMPRESSOR_TOPIC="zlib",
        CIPHER_TOPIC="tests.contract.shipped_recorder_cases:SealingCipher",
        CIPHER_KEY=SealingCipher.create_key(32),
    )
    with School(variables(postgres_dsn)) as plain, School(hidden) as secret:
        seen_id, hidden_id = plain.register("Fido"), secret.register("Rex")
        secret.add_trick(hidden_id, "vanish")
        assert secret.tricks_of(hidden_id) == ["vanish"]
    found = rows(postgres_dsn, "SELECT stream_id, data->>'name', metadata::text FROM events_json ORDER BY position")
    assert found == [(seen_id, "Fido", "{}"), (hidden_id, None, "{}"), (hidden_id, None, "{}")]
    ((first,),) = rows(postgres_dsn, "SELECT data FROM events WHERE position = 2")
    assert b"Rex" not in first
    with pytest.raises(zlib.error):
        zlib.decompress(first)
    named = {"CQRSKIT_DATABASE_URL": postgres_dsn}
    shown = [await cqrskit("events", *more, variables=named) for more in ((), ("--json",))]
    assert [(each.code, each.err) for each in shown] == [(0, ""), (0, "")]
    assert shown[0].out.splitlines()[2].endswith(f"({len(first)} bytes that are not JSON)")
    lines = [json.loads(line) for line in shown[1].out.splitlines()]
    assert [line["data"] and line["data"]["name"] for line in lines] == ["Fido", None, None]
    assert b64decode(lines[1]["data_base64"]) == first


def test_projections_of_the_library_follow_the_log_past_events_of_others(postgres_dsn: str) -> None:
    env = variables(postgres_dsn)
    with School(env) as school, closing(Factory(env)) as others:
        others.application_recorder().insert_events(events_of(uuid4()))
        dog_id = school.register("Fido")
        with (
            ProjectionRunner(
                application_class=School, projection_class=Tricks, view_class=TricksView, env=env
            ) as tricks,
            EventSourcedProjectionRunner(application_class=School, projection_class=Diplomas, env=env) as diplomas,
        ):
            position = school.add_trick(dog_id, "roll over")
            tricks.wait(position, timeout=10)
            diplomas.wait(position, timeout=10)
    assert rows(
        postgres_dsn, "SELECT follower, application_name, notification_id FROM recorder_tracking ORDER BY 1"
    ) == [
        ("diplomas", "School", position),
        ("tricks", "School", position),
    ]
    assert rows(postgres_dsn, "SELECT count(*) FROM events WHERE type LIKE '%Diploma.Awarded'") == [(1,)]


def test_a_database_that_was_not_migrated_is_refused_and_migrated_on_demand(postgres_server: PostgresServer) -> None:
    dsn = postgres_server.create_database(migrated=False)
    try:
        with closing(Factory(variables(dsn))) as factory, pytest.raises(MigrationRequired, match="cqrskit migrate"):
            factory.application_recorder()
        with School(variables(dsn, CREATE_TABLE="y")) as school:
            school.register("Fido")
        with School(variables(dsn)) as school:
            assert school.recorder.max_notification_id() == 1
    finally:
        postgres_server.drop_database(dsn)


def test_a_schema_holds_a_log_of_its_own(postgres_dsn: str) -> None:
    rows_of = "SELECT count(*) FROM {}.events"
    with psycopg.connect(postgres_dsn) as connection:
        connection.execute('CREATE SCHEMA "my school"')
    with School(variables(postgres_dsn, POSTGRES_SCHEMA="my school", CREATE_TABLE="y")) as school:
        school.register("Fido")
    assert rows(postgres_dsn, rows_of.format('"my school"')) == [(1,)]
    assert rows(postgres_dsn, rows_of.format("public")) == [(0,)]


def test_a_silent_database_is_an_operational_error_of_the_library() -> None:
    env = variables("postgresql://ann:secret@127.0.0.1:1/bank", POSTGRES_CONNECT_TIMEOUT="2")
    with closing(Factory(env)) as factory, pytest.raises(OperationalError, match=r"127\.0\.0\.1:1/bank") as caught:
        factory.application_recorder()
    assert "secret" not in str(caught.value)


def test_a_recorder_class_that_does_not_take_the_head_row_is_refused(postgres_dsn: str) -> None:
    topic = "eventsourcing.popo:POPOApplicationRecorder"
    with (
        closing(Factory(variables(postgres_dsn, APPLICATION_RECORDER_TOPIC=topic))) as factory,
        pytest.raises(ConfigurationError, match="lock of the log's head row"),
    ):
        factory.application_recorder()
