"""The recorders keep the contract of the eventsourcing library: the cases that it ships, on a real Postgres."""

from unittest import TestCase

import pytest
from eventsourcing.persistence import AggregateRecorder, ApplicationRecorder, ProcessRecorder, TrackingRecorder
from eventsourcing.utils import Environment

from cqrskit.postgres.recorder import Factory, LogRecorder, ProcessLogRecorder, SnapshotRecorder, TrackingTableRecorder
from tests.contract import shipped_recorder_cases as shipped


class OwnTracking(TrackingTableRecorder):
    """A user's class."""


class OnOwnDatabase(TestCase):
    """Each case has a database of its own."""

    dsn: str

    @pytest.fixture(autouse=True)
    def own_database(self, postgres_dsn: str) -> None:
        self.dsn = postgres_dsn

    def factory_for_this_case(self) -> Factory:
        factory = Factory({"POSTGRES_URL": self.dsn})
        self.addCleanup(factory.close)
        return factory


class TestApplicationRecorder(OnOwnDatabase, shipped.ApplicationRecorderTestCase[LogRecorder]):
    def create_recorder(self) -> LogRecorder:
        return self.factory_for_this_case().application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class TestEventsAreNotInterleaved(OnOwnDatabase, shipped.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory_for_this_case().application_recorder()


class TestSnapshotRecorder(OnOwnDatabase, shipped.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.factory_for_this_case().aggregate_recorder(purpose="snapshots")


class TestTrackingRecorder(OnOwnDatabase, shipped.TrackingRecorderTestCase):
    def create_recorder(self) -> TrackingRecorder:
        return self.factory_for_this_case().tracking_recorder()


class TestProcessRecorder(OnOwnDatabase, shipped.ProcessRecorderTestCase):
    def create_recorder(self) -> ProcessRecorder:
        return self.factory_for_this_case().process_recorder()


class TestFactory(OnOwnDatabase, shipped.InfrastructureFactoryTestCase[Factory]):
    def setUp(self) -> None:
        variables = {"PERSISTENCE_MODULE": "cqrskit.postgres.recorder", "POSTGRES_URL": self.dsn}
        self.env = Environment("Bank", variables)
        super().setUp()

    def expected_factory_class(self) -> type[Factory]:
        return Factory

    def expected_aggregate_recorder_class(self) -> type[AggregateRecorder]:
        return LogRecorder

    def expected_application_recorder_class(self) -> type[ApplicationRecorder]:
        return LogRecorder

    def expected_tracking_recorder_class(self) -> type[TrackingRecorder]:
        return TrackingTableRecorder

    def tracking_recorder_subclass(self) -> type[TrackingRecorder]:
        return OwnTracking

    def expected_process_recorder_class(self) -> type[ProcessRecorder]:
        return ProcessLogRecorder

    def test_create_snapshot_recorder(self) -> None:
        assert type(self.factory.aggregate_recorder("snapshots")) is SnapshotRecorder
