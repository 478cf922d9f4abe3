"""CQRS and event sourcing on Postgres and Elasticsearch."""
