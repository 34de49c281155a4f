"""Decides whether a host, its port and its addresses may be connected to."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from visaged.daemon.fetch.addresses import Address, destination, judge, unmapped
from visaged.daemon.fetch.errors import FetchError
from visaged.daemon.fetch.settings import FetchSettings, Rule, parse_rule
from visaged.daemon.fetch.urls import Target
from visaged.pipelines.runtime.ratelimit import LimitedLog

log = logging.getLogger(__name__)


class Policy:
    """Decides what may be connected to, by the configuration.

    Args:
        settings: The configuration of `fetch`.
    """

    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._allow = [parse_rule(text) for text in settings.allow]
        self._deny = [parse_rule(text) for text in settings.deny]
        self._log = LimitedLog(log)

    def admit(self, target: Target) -> None:
        """Check a host before its name is looked up.

        A name that is refused anyway is not looked up: the query would show this network to the name server.

        Raises:
            FetchError: Nothing may be fetched from there.
        """
        settings = self._settings
        if target.scheme not in settings.schemes:
            raise _forbidden(target, f"{target.scheme} is not among fetch.schemes")
        if any(rule.names(target.host) for rule in self._deny):
            raise _forbidden(target, "it is in fetch.deny")
        rules = [r for r in self._allow if self._fits(r, target) and (r.names(target.host) or r.network is not None)]
        if settings.public and target.port in settings.ports:
            return
        if not rules:
            if target.port not in settings.ports:
                raise _forbidden(target, "its port is neither in fetch.ports nor with the host in fetch.allow")
            raise _forbidden(target, "it is not in fetch.allow")

    def check(self, target: Target, addresses: Sequence[Address]) -> list[Address]:
        """Return the addresses of a host to connect to: all of them, or none.

        Args:
            target: The host, which `admit` must have accepted.
            addresses: All addresses of the host.

        Raises:
            FetchError: The host has no address, or one that may not be connected to.
        """
        if not addresses:
            raise FetchError("unreachable", f"{target.site} cannot be reached: its name has no address")
        plain = [unmapped(address) for address in addresses]
        for address in plain:
            reason = self._refusal(target, address)
            if reason is not None:
                # The client is not shown the addresses of names on this network.
                self._log("refused to fetch from %s at %s: %s", target.site, address, reason)
                raise _forbidden(target, reason)
        return list(dict.fromkeys(plain))

    def is_listed(self, address: Address) -> bool:
        """Return whether an entry of `allow` lists an address, which so is allowed even if it is not public."""
        return any(rule.holds(address) for rule in self._allow)

    def _refusal(self, target: Target, address: Address) -> str | None:
        settings = self._settings
        kind, name = judge(address)
        if kind == "never":
            return f"its address is {name}"
        if any(rule.holds(address) or rule.holds(destination(address)) for rule in self._deny):
            return "its address is in fetch.deny"
        is_named = any(rule.names(target.host) and self._fits(rule, target) for rule in self._allow)
        for rule in self._allow:
            # If the host is listed with its port, the entry for the address range need not repeat the port.
            if rule.holds(address) and (self._fits(rule, target) or (is_named and rule.port is None)):
                return None
        is_public_allowed = is_named or (settings.public and target.port in settings.ports)
        if kind == "public" and is_public_allowed:
            return None
        if is_public_allowed:
            return f"its address is {name}; who runs the daemon can list it in fetch.allow"
        return "its address is not in fetch.allow"

    def _fits(self, rule: Rule, target: Target) -> bool:
        return target.port == rule.port if rule.port is not None else target.port in self._settings.ports


def _forbidden(target: Target, reason: str) -> FetchError:
    return FetchError("forbidden", f"nothing is fetched from {target.site}: {reason}")
