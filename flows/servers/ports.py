"""Who may hold the gateway's port."""

from components.core.config import Settings
from components.machine import cluster, services


def require_gateway_port(settings: Settings) -> None:
    """Raise BusyError, before hours of work and not after, when the gateway's port is somebody else's."""
    head = services.running(settings, cluster.SERVICE)
    services.require_port(settings.host, settings.gateway_port, "the gateway", "OVERNIGHT_GATEWAY_PORT", owner=head)
