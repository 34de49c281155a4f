"""Which IP addresses are public, which are internal, and which are never fetched from.

`ipaddress.is_global` does not serve: its result depends on the patch level of Python, and it calls multicast, some
translations of IPv4 addresses (64:ff9b::7f00:1 is 127.0.0.1 behind a NAT64) and a cloud's internal services global.
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

Kind = Literal["public", "internal", "never"]
"""`public`: global unicast. `internal`: special, or of this network; only fetched from if the configuration lists it.
`never`: not fetched from, whatever the configuration says."""

# IANA IPv4 Special-Purpose Address Registry (iana.org/assignments/iana-ipv4-special-registry), all that is not globally
# reachable or is deprecated; IPv4 Multicast Address Space Registry; RFC numbers beside each. The first match counts.
_V4: tuple[tuple[str, Kind, str], ...] = (
    # Metadata services return the credentials of their machine to any program on it.
    ("169.254.0.0/16", "never", "link-local, where clouds have their metadata service"),  # RFC 3927
    (
        "168.63.129.16/32",
        "never",
        "Azure's internal service",
    ),  # its page "What is IP address 168.63.129.16?"
    ("100.100.100.200/32", "never", "Alibaba Cloud's metadata service"),  # its ECS guide, "instance metadata"
    ("192.0.0.192/32", "never", "Oracle Cloud's metadata service"),  # of its Classic generation
    ("0.0.0.0/8", "never", "of no host"),  # RFC 791, 1122: 0.0.0.0 connects to this machine
    ("224.0.0.0/4", "never", "multicast"),  # RFC 5771
    ("240.0.0.0/4", "never", "reserved"),  # RFC 1112, and 255.255.255.255, RFC 919
    ("127.0.0.0/8", "internal", "loopback"),  # RFC 1122
    ("10.0.0.0/8", "internal", "private"),  # RFC 1918
    ("172.16.0.0/12", "internal", "private"),
    ("192.168.0.0/16", "internal", "private"),
    ("100.64.0.0/10", "internal", "a provider's own"),  # RFC 6598
    ("192.0.0.0/24", "internal", "of protocols, not of hosts"),  # RFC 6890
    ("192.0.2.0/24", "internal", "for documentation"),  # RFC 5737
    ("198.51.100.0/24", "internal", "for documentation"),
    ("203.0.113.0/24", "internal", "for documentation"),
    ("198.18.0.0/15", "internal", "for benchmarks"),  # RFC 2544
    ("192.88.99.0/24", "internal", "a 6to4 relay"),  # RFC 7526
)

# IANA IPv6 Special-Purpose Address Registry (iana.org/assignments/iana-ipv6-special-registry).
_V6: tuple[tuple[str, Kind, str], ...] = (
    ("::/128", "never", "of no host"),  # RFC 4291; connects to this machine
    ("::1/128", "internal", "loopback"),  # RFC 4291
    ("fe80::/10", "never", "link-local"),  # RFC 4291
    ("ff00::/8", "never", "multicast"),  # RFC 4291
    ("fd00:ec2::/32", "never", "where AWS has its metadata service"),  # fd00:ec2::254, its EC2 guide
    ("fd20:ce::254/128", "never", "Google Cloud's metadata service"),  # its Compute Engine guide
    ("fc00::/7", "internal", "private"),  # RFC 4193
    ("2001:db8::/32", "internal", "for documentation"),  # RFC 3849
    ("3fff::/20", "internal", "for documentation"),  # RFC 9637
    # Tunnels end at the IPv4 address that they embed; both kinds are out of use, so neither is treated as public.
    ("2002::/16", "internal", "a 6to4 tunnel"),  # RFC 3056, 7526
    ("2001::/32", "internal", "a Teredo tunnel"),  # RFC 4380
    ("2001::/23", "internal", "of protocols, not of hosts"),  # RFC 2928: benchmarks, ORCHID, AMT, ...
    ("64:ff9b:1::/48", "internal", "a local translation of IPv4"),  # RFC 8215
)

_SPECIAL: dict[int, tuple[tuple[Network, Kind, str], ...]] = {
    4: tuple((IPv4Network(text), kind, name) for text, kind, name in _V4),
    6: tuple((IPv6Network(text), kind, name) for text, kind, name in _V6),
}
# All addresses that IANA has assigned to hosts (iana.org/assignments/ipv6-address-space); other IPv6 is not public.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# The well-known prefix of NAT64, RFC 6052: the last 32 bits are the IPv4 address that the gateway connects to.
_NAT64 = IPv6Network("64:ff9b::/96")


def unmapped(address: Address) -> Address:
    """Return the IPv4 address of an IPv4-mapped one, `::ffff:a.b.c.d` (RFC 4291); other addresses unchanged.

    The system connects to mapped addresses by IPv4.
    """
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def destination(address: Address) -> Address:
    """Return the address where a connection ends: the IPv4 address in a mapped or NAT64 address, else itself."""
    address = unmapped(address)
    if isinstance(address, IPv6Address) and address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def judge(address: Address) -> tuple[Kind, str]:
    """Return the kind of an address, by its destination, and a word or two for the reason."""
    address = destination(address)
    for network, kind, name in _SPECIAL[address.version]:
        if address in network:
            return kind, name
    if isinstance(address, IPv6Address) and address not in _GLOBAL_UNICAST:
        return "internal", "not in use for hosts"
    return "public", "public"


def never(network: Network) -> str | None:
    """Return a word or two for why no address of a range is ever connected to; None if some may be."""
    for special, kind, name in _SPECIAL[network.version]:
        if kind == "never" and network[0] in special and network[-1] in special:
            return name
    return None


def parse(text: str) -> Address:
    """Return an address as the resolver gives it, without the zone of a link-local one; raises `ValueError`."""
    return ipaddress.ip_address(text.partition("%")[0])
