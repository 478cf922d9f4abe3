"""Settings: read once, checked at the start, errors name the variable."""

import pytest

from cqrskit import ConfigurationError, load_settings


def test_nothing_needs_to_be_set() -> None:
    settings = load_settings({})
    assert (settings.database_url, settings.elasticsearch_url, settings.port) == (None, None, 8000)


def test_values_are_read_as_what_they_are() -> None:
    settings = load_settings({"CQRSKIT_PORT": "9000", "CQRSKIT_POLL_INTERVAL_SECONDS": "0.5", "PATH": "x"}, host="::1")
    assert (settings.port, settings.poll_interval_seconds, settings.host) == (9000, 0.5, "::1")


def test_what_is_given_wins_over_the_environment_and_none_does_not() -> None:
    assert load_settings({"CQRSKIT_PORT": "9000"}, port=1).port == 1
    assert load_settings({"CQRSKIT_PORT": "9000"}, port=None).port == 9000


def test_variables_of_the_test_suite_are_passed_over() -> None:
    assert load_settings({"CQRSKIT_TEST_CACHE": "x"}) == load_settings({})


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CQRSKIT_PORT", "many"),
        ("CQRSKIT_PORT", "65536"),
        ("CQRSKIT_CONNECTIONS_MAX", "1"),
        ("CQRSKIT_LOG_LEVEL", "loud"),
        ("CQRSKIT_INDEX_PREFIX", "Big"),
        ("CQRSKIT_WAIT_TIMEOUT_SECONDS", "0"),
        ("CQRSKIT_BATCH_SIZE_MAX", "1.5"),
        ("CQRSKIT_COLOUR", "red"),
        ("CQRSKIT_COMMAND_TIMEOUT_SECONDS", "inf"),
        ("CQRSKIT_RECEIPTS_KEPT_DAYS", "nan"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=variable):
        load_settings({variable: value})


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("CQRSKIT_PORT", "many", "it must be a whole number"),
        ("CQRSKIT_PORT", "65536", "it must be a number <= 65535"),
        ("CQRSKIT_WAIT_TIMEOUT_SECONDS", "soon", "it must be a number"),
        ("CQRSKIT_WAIT_TIMEOUT_SECONDS", "0", "it must be a number > 0.0"),
        ("CQRSKIT_COMMAND_TIMEOUT_SECONDS", "inf", "it must be a finite number"),
        ("CQRSKIT_INDEX_PREFIX", "Big", r"it must match ^[a-z][a-z0-9_]*$"),
        ("CQRSKIT_INDEX_PREFIX", "a" * 31, "it must have at most 30 characters"),
        ("CQRSKIT_BATCH_SIZE", "10", "did you mean CQRSKIT_BATCH_SIZE_MAX?"),
        ("CQRSKIT_COLOUR", "red", "the settings are CQRSKIT_APP, "),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(variable: str, value: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({variable: value})
    assert words in str(caught.value)
