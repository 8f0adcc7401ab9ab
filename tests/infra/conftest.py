"""These tests see no cluster, token or home of the user's, and create the schema of a sqlite file once."""

from tests.jobs.conftest import _one_schema, _own_ray  # noqa: F401
