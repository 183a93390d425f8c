"""The network device through which gloo's ranks on one machine meet, and what is said without it.

How it works: ranks of one machine take the loopback device, which needs no network and no name of
the machine; gloo's own choice would ask for the address of that name, which many machines lack.
Left out: choosing among the devices of several machines; GLOO_SOCKET_IFNAME does.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "GLOO_SOCKET_IFNAME"
_NO_ADDRESS = "Unable to find address for"  # gloo's words


def use_loopback() -> None:
    """Let gloo take the loopback device, unless somebody has chosen another."""
    os.environ.setdefault(VARIABLE, "lo0" if sys.platform == "darwin" else "lo")


def device_problem(error: Exception) -> str:
    """One sentence where gloo's device has no address; "" for any other error."""
    if _NO_ADDRESS not in str(error):
        return ""
    name = os.environ.get(VARIABLE, "")
    return (
        f"the network device {name!r} is switched off or missing, so ranks cannot meet: switch it "
        f"on (on Linux `ip link set {name} up`), or name another one by {VARIABLE}."
    )
