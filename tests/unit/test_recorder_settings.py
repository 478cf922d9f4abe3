"""The recorder's settings: those of the eventsourcing library are read, and what loses events is refused."""

import pytest
from eventsourcing.utils import Environment
from psycopg.conninfo import conninfo_to_dict

from cqrskit.errors import ConfigurationError
from cqrskit.postgres.recorder_settings import RecorderSettings, read_recorder_settings

PARTS = {
    "POSTGRES_DBNAME": "bank",
    "POSTGRES_HOST": "db.example",
    "POSTGRES_USER": "ann",
    "POSTGRES_PASSWORD": "it's secret",
}
URL = {"POSTGRES_URL": "postgresql://ann:secret@db.example/bank"}


def read(variables: dict[str, str], name: str = "") -> RecorderSettings:
    return read_recorder_settings(Environment(name, variables))


def rotated_password() -> str:
    return "of today"


def test_the_database_is_named_by_the_librarys_variables() -> None:
    parts = conninfo_to_dict(read({**PARTS, "POSTGRES_PORT": "6543"}).url())
    assert parts == {
        "dbname": "bank",
        "host": "db.example",
        "port": "6543",
        "user": "ann",
        "password": "it's secret",
    }


def test_the_database_is_named_by_one_url() -> None:
    assert conninfo_to_dict(read(URL).url())["password"] == "secret"


def test_a_function_gives_the_password_for_each_connection() -> None:
    variables = {**PARTS, "POSTGRES_GET_PASSWORD_TOPIC": f"{__name__}:rotated_password"}
    assert conninfo_to_dict(read(variables).url())["password"] == "of today"


def test_a_schema_becomes_the_search_path_beside_other_options() -> None:
    url = {
        "POSTGRES_URL": "postgresql://ann@db.example/bank?options=-c%20work_mem%3D8MB",
        "POSTGRES_SCHEMA": "my school",
    }
    assert conninfo_to_dict(read(url).url())["options"] == r'-c work_mem=8MB -c search_path="my\ school"'


def test_numbers_and_flags_are_read() -> None:
    settings = read(
        {
            **URL,
            "POSTGRES_CONNECT_TIMEOUT": "3",
            "POSTGRES_POOL_SIZE": "2",
            "POSTGRES_MAX_OVERFLOW": "0",
            "POSTGRES_MAX_WAITING": "7",
            "POSTGRES_CONN_MAX_AGE": "60.5",
            "POSTGRES_IDLE_IN_TRANSACTION_SESSION_TIMEOUT": "9",
            "POSTGRES_LOCK_TIMEOUT": "4",
            "POSTGRES_PRE_PING": "yes",
            "CREATE_TABLE": "y",
        }
    )
    assert settings == RecorderSettings(
        address=settings.address,
        connect_timeout_seconds=3.0,
        pool_size=2,
        overflow_max=0,
        waiting_max=7,
        connection_age_max_seconds=60.5,
        idle_in_transaction_timeout_seconds=9.0,
        lock_timeout_seconds=4.0,
        pre_ping=True,
        creates_tables=True,
    )


def test_an_applications_own_variable_goes_before_the_common_one() -> None:
    settings = read({**URL, "POSTGRES_POOL_SIZE": "2", "SCHOOL_POSTGRES_POOL_SIZE": "9"}, "School")
    assert settings.pool_size == 9


@pytest.mark.parametrize("variable", ["POSTGRES_DBNAME", "POSTGRES_HOST", "POSTGRES_USER", "POSTGRES_PASSWORD"])
def test_a_part_that_is_missing_is_named(variable: str) -> None:
    with pytest.raises(ConfigurationError, match=f"set {variable}, or all in one: POSTGRES_URL"):
        read({name: value for name, value in PARTS.items() if name != variable})


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"POSTGRES_ENABLE_DB_FUNCTIONS": "y"}, "POSTGRES_ENABLE_DB_FUNCTIONS.*would never see position 1"),
        ({"SCHOOL_POSTGRES_ENABLE_DB_FUNCTIONS": "on"}, "SCHOOL_POSTGRES_ENABLE_DB_FUNCTIONS.*takes no lock"),
        ({"SINGLE_ROW_TRACKING": "n"}, "SINGLE_ROW_TRACKING.*one row per follower"),
        ({"ORIGINATOR_ID_TYPE": "text"}, "ORIGINATOR_ID_TYPE='text'.*named by UUIDs"),
        ({"POSTGRES_TABLE_NAME": "mine"}, "POSTGRES_TABLE_NAME is not a setting"),
        ({"SCHOOL_POSTGRES_POOLSIZE": "3"}, "SCHOOL_POSTGRES_POOLSIZE is not a setting"),
        ({"POSTGRES_SINGLE_ROW_TRACKING": "n"}, "POSTGRES_SINGLE_ROW_TRACKING is not a setting"),
        ({"POSTGRES_DBNAME": "other"}, "POSTGRES_URL and POSTGRES_DBNAME both say"),
        ({"POSTGRES_POOL_SIZE": "many"}, "POSTGRES_POOL_SIZE='many' is not usable"),
        ({"POSTGRES_LOCK_TIMEOUT": "-1"}, "POSTGRES_LOCK_TIMEOUT='-1' is not usable"),
        ({"POSTGRES_CONN_MAX_AGE": "nan"}, "POSTGRES_CONN_MAX_AGE='nan' is not usable"),
        ({"POSTGRES_POOL_SIZE": "0", "POSTGRES_MAX_OVERFLOW": "0"}, "allow no connection"),
        ({"POSTGRES_PRE_PING": "perhaps"}, "POSTGRES_PRE_PING='perhaps'.*say y or n"),
        ({"POSTGRES_URL": "postgresql://a?b=c"}, "address cannot be read"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_would_lose_events_or_have_no_effect_is_refused(variables: dict[str, str], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        read({**URL, **variables}, "School")


def test_a_password_function_that_is_none_is_refused() -> None:
    for topic in ("nowhere:nothing", f"{__name__}:PARTS"):
        with pytest.raises(ConfigurationError, match="POSTGRES_GET_PASSWORD_TOPIC"):
            read({**PARTS, "POSTGRES_GET_PASSWORD_TOPIC": topic})


def test_harmless_values_and_variables_of_other_programs_are_let_through() -> None:
    settings = read(
        {
            **URL,
            "POSTGRES_ENABLE_DB_FUNCTIONS": "n",
            "SINGLE_ROW_TRACKING": "t",
            "ORIGINATOR_ID_TYPE": "uuid",
            "POSTGRES_DB": "made by the container image",
            "POSTGRES_SERVICE_HOST": "set by Kubernetes",
            "OTHER_POSTGRES_NONSENSE": "of another application",
        },
        "School",
    )
    assert settings.creates_tables is False
