"""Read models in Elasticsearch 8."""
