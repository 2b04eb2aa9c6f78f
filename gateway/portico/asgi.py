"""Where an ASGI server finds the gateway: `portico.asgi:app`."""

from portico.bootstrap import gateway
from portico.settings import GatewaySettings

app = gateway(GatewaySettings())
