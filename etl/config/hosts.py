"""Judge where a host leads by its name or address alone: pure functions."""

import ipaddress
import socket
from collections.abc import Iterable

_PRIVATE = [
    ipaddress.ip_network(text)
    for text in (
        # RFC 6890 and its successors: private, shared, link-local (metadata services), reserved
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
        "::/127", "64:ff9b:1::/48", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
    )
]  # fmt: skip
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_METADATA = ("metadata", "instance-data")
_LOCAL = (".internal", ".local", ".localhost", ".home.arpa")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_loopback(host: str) -> bool:
    """Return whether `host` is `localhost` or a loopback address, in brackets or not."""
    found = address(host)
    return found.is_loopback if found else host.lower() == "localhost"


def is_private(host: str) -> bool:
    """Return whether `host` is in a private network, this machine, or a cloud's metadata service.

    An address is judged by its block, also one that an IPv6 address wraps; a name, as nothing is
    looked up here, by what it is reserved for (RFC 6762, RFC 8375, ICANN's `.internal`).
    """
    found = address(host)
    if found is None:
        name = host.lower().rstrip(".")
        return name in (*_METADATA, "localhost") or name.endswith(_LOCAL)
    return any(found.version == block.version and found in block for block in _PRIVATE)


def is_odd_address(host: str) -> bool:
    """Return whether resolvers take `host` for an IPv4 address although it does not look like one.

    Such are 2852039166, 0x7f.1 and 0177.0.0.1 (inet_aton(3)).
    """
    try:
        socket.inet_aton(host)
    except (OSError, ValueError):
        return False
    return address(host) is None


def is_exempt(host: str, exceptions: Iterable[str]) -> bool:
    """Return whether `host` is reached without the proxy: loopback, and what `exceptions` name.

    An exception is a host name with all names below it, a `.domain` (only the names below it), an
    address, a network (`10.0.0.0/8`), or `*`. Networks hold addresses, and no name is looked up.
    """
    return is_loopback(host) or any(_meant(host, exception) for exception in exceptions)


def _meant(host: str, exception: str) -> bool:
    found, block = address(host), network(exception)
    if exception == "*":
        return True
    if found is not None:
        return block is not None and found.version == block.version and found in block
    name, suffix = host.lower().rstrip("."), exception.lower().rstrip(".")
    return name == suffix or name.endswith(f".{suffix.removeprefix('.')}")


def network(text: str) -> Network | None:
    """Return the network that `text` is, of one address if it is an address; None for others."""
    try:
        return ipaddress.ip_network(text.strip("[]"), strict=False)
    except ValueError:
        return None


def address(host: str) -> Address | None:
    """Return the address that `host` is, unwrapped from an IPv6 address; None for a name."""
    try:
        found = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found in _NAT64:
            return ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        return found.ipv4_mapped or found.sixtofour or found
    return found
