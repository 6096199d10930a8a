"""Network cards and what is behind them."""

from pyvirt.nic.address import Address, Fd, Inet, Unix, Vsock
from pyvirt.nic.backend import Backend, Netdev, Wire
from pyvirt.nic.card import Nic
from pyvirt.nic.features import Control, Offloads
from pyvirt.nic.forward import Forward, GuestForward
from pyvirt.nic.hub import Hub
from pyvirt.nic.passt import Passt
from pyvirt.nic.rate import Rate
from pyvirt.nic.socket import Dgram, Socket, Stream
from pyvirt.nic.tap import Bridge, Tap
from pyvirt.nic.tunnel import L2tpv3, Vde
from pyvirt.nic.user import User
from pyvirt.nic.vhost import VhostUser, VhostVdpa

__all__ = [
    "Address",
    "Backend",
    "Bridge",
    "Control",
    "Dgram",
    "Fd",
    "Forward",
    "GuestForward",
    "Hub",
    "Inet",
    "L2tpv3",
    "Netdev",
    "Nic",
    "Offloads",
    "Passt",
    "Rate",
    "Socket",
    "Stream",
    "Tap",
    "Unix",
    "User",
    "Vde",
    "VhostUser",
    "VhostVdpa",
    "Vsock",
    "Wire",
]
