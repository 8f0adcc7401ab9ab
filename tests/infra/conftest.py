"""Stores, servers and clusters of these tests see no cluster, token or home of the user's."""

from tests.jobs.conftest import _own_ray  # noqa: F401
