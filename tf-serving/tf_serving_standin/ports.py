"""Looks whether the ports asked for are free before minutes are spent on loading models.

Called by the command line ahead of TensorFlow; the edges still report a port that is taken in the meantime.
"""

import os
import socket

BIND_ADDRESS_VARIABLE = "TF_SERVING_STANDIN_BIND_ADDRESS"


def bind_address() -> str:
    """The address to listen on: all of them, as the real server does, unless the environment names another."""
    return os.environ.get(BIND_ADDRESS_VARIABLE, "0.0.0.0")  # noqa: S104 - as the real server does


def taken_port(port: int, rest_port: int) -> str | None:
    """What to tell the user when a port cannot be had, None when both can; 0 stands for no port."""
    for protocol, flag, number in (("gRPC", "--port", port), ("REST", "--rest_api_port", rest_port)):
        if number == 0:
            continue
        with socket.socket() as probe:
            # A connection that has just ended must not look like a server.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((bind_address(), number))
            except (OSError, OverflowError) as error:
                return port_complaint(protocol, flag, number, error)
    return None


def port_complaint(protocol: str, flag: str, port: int, error: Exception) -> str:
    """The sentence for a port that cannot be had."""
    return (
        f"Cannot listen for {protocol} at {bind_address()}:{port} ({error}). "
        f"Is another server running there? Choose another {flag}."
    )
