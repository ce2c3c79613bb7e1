"""suppress: who gets no mail. Key: tenant (empty: the global list), NUL, address in its one form. In force: kept until removed.
What does not stop mail (too few bounces, what was removed) is in a table of its own, until nothing old can come back."""

from __future__ import annotations

from postroad import addresses
from postroad.suppression import ADDED_LATER, Listed, Rules, kept_until
from tables.values import shape, to_json
from topics.state import Table, View

SUPPRESSED: Table[Listed] = Table(1, "suppressed", to_json, shape(Listed, ADDED_LATER))
NOT_IN_FORCE: Table[Listed] = Table(4, "not_in_force", to_json, shape(Listed, ADDED_LATER), expires=True)


def key(tenant: str, recipient: str) -> str:
    """Key of an address on a tenant's list."""
    return f"{tenant}\0{addresses.key(recipient)}"


def get(state: View, key: str) -> Listed | None:
    """The entry, whether it is in force or not."""
    found: Listed | None = state.suppressed.get(key) or state.not_in_force.get(key)
    return found


def put(state: View, key: str, listed: Listed, rules: Rules) -> None:
    """The entry, in the one table or in the other."""
    if listed["active"]:
        state.suppressed.put(key, listed)
        if state.not_in_force.get(key) is not None:
            state.not_in_force.delete(key)
        return
    state.not_in_force.put(key, listed, kept_until(listed, rules))
    if state.suppressed.get(key) is not None:
        state.suppressed.delete(key)
