"""The gateway with a debugger listening, run by compose.dev.yml: `python debugged.py` in place of `portico gateway`.

The server's process is Envoy with Python in it, which no `python -m debugpy` can start, so the application opens the
port itself. Environment: DEBUGGER, host:port.
"""

import os

from portico.edges.asgi import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """The gateway's application."""
    from portico.asgi import app as gateway

    if scope["type"] == "lifespan":
        listen()
    await gateway(scope, receive, send)


def listen() -> None:
    """Opens the debugger's port. To be called in the thread of the event loop, since it is that one which is traced."""
    import debugpy  # noqa: T100 - it is what this module is for

    host, _, port = os.environ["DEBUGGER"].rpartition(":")
    debugpy.configure(python="python")  # by default its other half is this process' program, which is Envoy
    debugpy.listen((host, int(port)))  # noqa: T100


if __name__ == "__main__":
    from portico.edges.pyvoy import serve
    from portico.settings import GatewaySettings

    settings = GatewaySettings()
    serve("debugged:app", settings.host, settings.port, settings.max_message_bytes)
