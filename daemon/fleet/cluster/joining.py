"""Connecting this process to a Ray cluster, with Ray's errors turned into texts that say what to do."""

from __future__ import annotations

import logging
import os
import re
import socket

from visaged.daemon.errors import StartError
from visaged.daemon.fleet.cluster.names import NAMESPACE

INSTALL = "Ray is not installed: pip install 'visaged[fleet]'"
_START = (
    "start one with `ray start --head` on the first machine and `ray start --address HOST:6379` on the others, or name "
    "one with --address HOST:6379"
)

_WITHOUT_KEY = (
    "the Ray cluster asks for its token: set RAY_AUTH_MODE=token, and give the token of the head node "
    "(~/.ray/auth_token there) as the same file here, or in RAY_AUTH_TOKEN"
)
_WITHOUT_NODE = (
    "this machine is no node of that Ray cluster: run the command on one that is, which has joined it by `ray start "
    "--address HOST:6379`"
)
_PROBE_S = 5.0


def connect(address: str) -> None:
    """Connect this process to a Ray cluster that runs.

    Args:
        address: `auto` for the cluster of `RAY_ADDRESS`, or else of this machine; `HOST:PORT` of the head node.

    Raises:
        StartError: Ray is not installed, there is no such cluster, or it has another version of Ray or Python.
    """
    try:
        import ray
    except ImportError:
        raise StartError(INSTALL) from None
    _probe(os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address)
    try:
        ray.init(
            address=address,
            namespace=NAMESPACE,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise StartError(reason(address, error)) from None


def _probe(address: str) -> None:
    """Raise `StartError` if nothing listens at an address, for which Ray itself waits minutes."""
    if address == "auto":
        return
    host, mark, port = address.rpartition(":")
    if "://" in address or not mark or not port.isdecimal() or not 0 < int(port) < 65536:
        raise StartError(f"{address!r} is no address of a Ray cluster: give HOST:PORT, such as head:6379, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PROBE_S).close()
    except OSError as error:
        text = error.strerror or str(error) or "no answer"
        raise StartError(f"the Ray cluster at {address} cannot be reached ({text}): {_START}") from None


def reason(address: str, error: BaseException) -> str:
    """Return why a cluster cannot be joined, and what to do, from the error that Ray raised."""
    text = str(error)
    cause: BaseException | None = error
    while cause is not None:
        if "InvalidAuthToken" in str(cause):
            return _WITHOUT_KEY
        if "No node info found" in str(cause):
            return _WITHOUT_NODE
        cause = cause.__cause__ or cause.__context__
    found = re.search(
        r"started with:\s+Ray: (\S+)\s+Python: (\S+).*?started with:\s+Ray: (\S+)\s+Python: (\S+)", text, re.DOTALL
    )
    if found is not None:
        theirs, ours = f"Ray {found[1]} and Python {found[2]}", f"Ray {found[3]} and Python {found[4]}"
        return (
            f"the Ray cluster has {theirs}, and this machine {ours}: install the same versions on all machines of the "
            "cluster (a Python that differs in its third number alone is let in with "
            "RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor)"
        )
    if address == "auto":
        return f"no Ray cluster runs on this machine, and RAY_ADDRESS names none: {_START}"
    line = next((one for one in text.splitlines() if one.strip()), "no answer")
    return f"the Ray cluster at {address} cannot be reached ({line[:300]}): {_START}"
