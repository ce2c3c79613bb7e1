"""REST: `postroad gateway api`. One route is one function with its body and answer as msgspec structs; OpenAPI comes from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.api.routes import Route


def all_routes() -> list[Route]:
    """Every route, the one that is called most first."""
    from gateway.api import access, batch, domains, send, sendgrid, statistics, status, suppressions, webhooks

    modules = (send, sendgrid, status, batch, suppressions, statistics, domains, webhooks, access)
    return [route for module in modules for route in module.routes.all]
