"""Tells addresses of the open Internet from those that only machines inside a house or a cloud should reach.

Who fetches what strangers name must not become their hand inside: routers, metadata services, databases.
Source: IANA IPv4 and IPv6 Special-Purpose Address Registries, as `ipaddress` knows them; RFC 6052, 3056 and 4380 for
addresses that carry another one; Microsoft, "What is IP address 168.63.129.16?".
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address, ip_network

_CARRYING = ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
"""Where a gateway may take a packet for an IPv4 address that is written within."""
_RESERVED = ("192.0.0.0/24", "192.88.99.0/24")
"""Of which some versions of `ipaddress` know only parts."""
_REFUSED = tuple(map(ip_network, _CARRYING + _RESERVED))
_OF_CLOUDS = frozenset({ip_address("168.63.129.16")})
"""Looks public, and is what Azure's machines ask for their secrets."""


def is_public(address: str) -> bool:
    """Whether an IP address is somebody's on the open Internet. What is no address is not."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return is_public(str(found.ipv4_mapped))
        if found.scope_id or found.is_site_local:
            return False
    if any(found in network for network in _REFUSED):
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved) and found not in _OF_CLOUDS
