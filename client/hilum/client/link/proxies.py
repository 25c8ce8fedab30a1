"""The way out of a hospital's network: a CONNECT proxy, where the environment names one.

Read from HTTPS_PROXY and NO_PROXY (or in small letters), as other programs do. A server on this machine is never asked
for through a proxy.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from hilum.common.errors import ConfigError

_DEFAULT_PORT = 3128  # squid's, and what most proxies listen on


@dataclass(frozen=True)
class Proxy:
    """A proxy that is asked to CONNECT. Its password is never shown."""

    host: str
    port: int
    login: tuple[str, str] | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        """The proxy, as lines for people name it."""
        return f"{self.host}:{self.port}"


def proxy_for(host: str, environment: Mapping[str, str]) -> Proxy | None:
    """Return the proxy for a server, or None to go there directly.

    Raises:
        ConfigError: If HTTPS_PROXY is not the address of an HTTP proxy.
    """
    named = environment.get("https_proxy") or environment.get("HTTPS_PROXY") or ""
    excepted = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    if not named or is_loopback(host) or _is_excepted(host, excepted):
        return None
    try:
        parts = urlsplit(named if "://" in named else f"http://{named}")
        address, port = parts.hostname, parts.port or _DEFAULT_PORT
    except ValueError:
        parts, address, port = urlsplit(""), None, 0
    if address is None or parts.scheme != "http":
        raise ConfigError(
            "HTTPS_PROXY", ["expected http://HOST:PORT, the address of a proxy that allows CONNECT"]
        )
    login = (unquote(parts.username), unquote(parts.password or "")) if parts.username else None
    return Proxy(address, port, login)


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")


def _is_excepted(host: str, excepted: str) -> bool:
    """Tell whether NO_PROXY names a host: by its name, a domain above it, its address or a network around it."""
    name = host.lower().rstrip(".")
    for entry in (word.strip().lower() for word in excepted.split(",")):
        if not entry:
            continue
        domain = entry.split(":")[0].lstrip("*").lstrip(".")
        if entry in {"*", name} or (domain and f".{name}".endswith(f".{domain}")):
            return True
        try:
            if ipaddress.ip_address(name) in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:
            continue
    return False
