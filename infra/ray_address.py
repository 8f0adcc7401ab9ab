"""What RAY_ADDRESS names, asked before Ray connects: Ray itself tries for minutes, with raw lines."""

from __future__ import annotations

import os

from infra import STARTS_HERE
from infra.errors import UsageError, one_line, printable

ANSWER_S = 5.0  # a head that says nothing for so long is given up
SUBMIT = "ray job submit --address {} --working-dir . -- python jobs/…"


def names_a_cluster() -> bool:
    """Whether RAY_ADDRESS is set to one, for this process to join."""
    return os.environ.get("RAY_ADDRESS", "").strip() not in STARTS_HERE


def cluster_address() -> str | None:
    """The host:port of the cluster to join, which has answered; None to start Ray on this machine.

    Raises UsageError, within seconds, for an address that this process cannot join.
    """
    if not names_a_cluster():
        return None
    given = os.environ["RAY_ADDRESS"].strip()
    address = _found_here(given) if given == "auto" else given
    scheme, separator, rest = address.partition("://")
    if separator and scheme in ("http", "https"):
        cause = "is the address of the job server"
        raise _refused(f"{cause}; submit the job: {SUBMIT.format(address.rstrip('/'))}")
    if separator:
        host = rest.partition("/")[0].rpartition("@")[2].rpartition(":")[0] or "HOST"
        cause = f"{scheme}:// cannot be joined; set RAY_ADDRESS={host}:6379 on a node of the cluster, or submit the job"
        raise _refused(f"{cause}: {SUBMIT.format(f'http://{host}:8265')}")
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise _refused("is no HOST:PORT; give that of the head, such as 10.0.0.1:6379")
    _ask(address)
    return address


def _refused(why: str) -> UsageError:
    return UsageError(f"RAY_ADDRESS {printable(os.environ['RAY_ADDRESS'])}: {why}")


def _found_here(given: str) -> str:
    """The cluster of this machine that "auto" stands for."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        found = canonicalize_bootstrap_address(given)
    except (ConnectionError, ValueError, OSError):
        found = None
    if found is None:
        raise _refused("no Ray runs on this machine; start one, or unset RAY_ADDRESS: the job starts its own")
    return str(found)


def _ask(address: str) -> None:
    """Ask the head for its cluster's id, as every client of Ray does first."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel
    from ray.core.generated.gcs_service_pb2 import GetClusterIdRequest  # type: ignore[attr-defined]
    from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
    from ray.exceptions import AuthenticationError

    try:
        with init_grpc_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:  # Ray's own go through none
            NodeInfoGcsServiceStub(channel).GetClusterId(GetClusterIdRequest(), timeout=ANSWER_S)
    except AuthenticationError as error:  # RAY_AUTH_MODE=token without one
        mend = "copy that of the head to ~/.ray/auth_token, or set RAY_AUTH_TOKEN"
        raise _refused(f"there is no token to show it; {mend}") from error
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            mend = "set RAY_AUTH_MODE=token, and copy the head's ~/.ray/auth_token to here or set RAY_AUTH_TOKEN"
            raise _refused(f"asks for a token, and was shown none or another; {mend}") from error
        cause = f"no Ray head answers there ({one_line(error.details() or error.code().name)})"
        mend = "see to the address, start the cluster, or unset RAY_ADDRESS: the job starts a Ray of its own"
        raise _refused(f"{cause}; {mend}") from error
