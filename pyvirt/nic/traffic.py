"""Messages to the kernel about a tap (rtnetlink(7)), as ``ip`` and ``tc`` would send them.

What the guest receives leaves the host through the tap: a token bucket (tbf) delays it. What
the guest sends arrives from the tap: the ingress hook can only drop what is too much (police).
"""

from __future__ import annotations

import struct

RTM_GETLINK, RTM_NEWQDISC, RTM_DELQDISC, RTM_NEWTFILTER = 18, 36, 37, 44
IFLA_MASTER = 10
NLM_F_REQUEST, NLM_F_ACK, NLM_F_REPLACE, NLM_F_CREATE = 1, 4, 0x100, 0x400

TC_H_ROOT, TC_H_INGRESS = 0xFFFFFFFF, 0xFFFFFFF1
INGRESS_HANDLE, INGRESS_HOOK = 0xFFFF0000, 0xFFFFFFF2

TCA_KIND, TCA_OPTIONS = 1, 2
TCA_TBF_PARMS, TCA_TBF_RATE64, TCA_TBF_BURST = 1, 4, 6
TCA_MATCHALL_ACT = 2
TCA_ACT_KIND, TCA_ACT_OPTIONS = 1, 2
TCA_POLICE_TBF, TCA_POLICE_RATE, TCA_POLICE_RATE64 = 1, 2, 8
TC_ACT_SHOT = 2
NLA_F_NESTED = 0x8000

PRIORITY, ETH_P_ALL = 1, 0x0003
LINKLAYER_ETHERNET = 1

#: Seconds that a packet may wait for its turn before it is dropped.
LATENCY = 0.05

#: The kernel counts bursts in ticks of 64 ns (/proc/net/psched).
TICKS = 1_000_000_000 // 64

_U32 = 0xFFFFFFFF


def shaping(index: int, rate: int, burst: int) -> bytes:
    """The message that delays what interface number `index` sends, in place of any before."""
    return _qdisc(RTM_NEWQDISC, index, TC_H_ROOT, 0, b"tbf", _tbf(rate, burst))


def unshaped(index: int) -> bytes:
    """The message that ends `shaping`; the kernel refuses it where there is none."""
    return _qdisc(RTM_DELQDISC, index, TC_H_ROOT, 0, b"tbf")


def policing(index: int, rate: int, burst: int) -> tuple[bytes, bytes]:
    """The messages that drop what interface number `index` receives too fast."""
    hook = _qdisc(RTM_NEWQDISC, index, TC_H_INGRESS, INGRESS_HANDLE, b"ingress")
    return hook, _police(index, rate, burst)


def unpoliced(index: int) -> bytes:
    """The message that ends `policing`; the kernel refuses it where there is none."""
    return _qdisc(RTM_DELQDISC, index, TC_H_INGRESS, INGRESS_HANDLE, b"ingress")


def get_link(index: int) -> bytes:
    """The message that asks about interface number `index`."""
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    return struct.pack("=IHHII", 16 + len(body), RTM_GETLINK, NLM_F_REQUEST, 0, 0) + body


def master(reply: bytes) -> int:
    """The number of the interface that owns the one asked about (``IFLA_MASTER``), or 0."""
    (end,) = struct.unpack_from("=I", reply)
    at = 32  # after the message's header and that of the interface
    while at + 4 <= min(end, len(reply)):
        length, kind = struct.unpack_from("=HH", reply, at)
        if kind == IFLA_MASTER and length == 8:
            return int(struct.unpack_from("=I", reply, at + 4)[0])
        at += max(4, length + 3 & ~3)
    return 0


def error(reply: bytes) -> int:
    """The errno in the kernel's answer, 0 for success."""
    return -int(struct.unpack_from("=i", reply, 16)[0])


def _qdisc(
    kind: int, index: int, parent: int, handle: int, name: bytes, options: bytes = b""
) -> bytes:
    # A tap may be born with a qdisc of its own (net.core.default_qdisc): it is replaced.
    flags = NLM_F_CREATE | NLM_F_REPLACE if kind == RTM_NEWQDISC else 0
    attributes = _attribute(TCA_KIND, name + b"\0") + options
    return _message(kind, flags, index, handle, parent, 0, attributes)


def _tbf(rate: int, burst: int) -> bytes:
    limit = min(int(rate * LATENCY) + burst, _U32)
    parameters = _ratespec(rate) + bytes(12) + struct.pack("=III", limit, 0, 0)
    body = _attribute(TCA_TBF_PARMS, parameters)
    body += _attribute(TCA_TBF_BURST, struct.pack("=I", min(burst, _U32)))
    return _attribute(TCA_OPTIONS, body + _rate64(TCA_TBF_RATE64, rate))


def _police(index: int, rate: int, burst: int) -> bytes:
    ticks = min(burst * TICKS // rate, _U32)
    # index, action, limit, burst, mtu; the rate, no peak rate; references and capabilities.
    head = struct.pack("=IiIII", 0, TC_ACT_SHOT, 0, ticks, 2**20)
    parameters = head + _ratespec(rate) + bytes(12) + bytes(12)
    # The kernel wants the table of sending times and no longer reads it.
    body = _attribute(TCA_POLICE_TBF, parameters) + _attribute(TCA_POLICE_RATE, bytes(1024))
    body += _rate64(TCA_POLICE_RATE64, rate)
    action = _attribute(TCA_ACT_KIND, b"police\0") + _attribute(
        TCA_ACT_OPTIONS | NLA_F_NESTED, body
    )
    first = _attribute(1, action)
    options = _attribute(TCA_OPTIONS, _attribute(TCA_MATCHALL_ACT, first))
    attributes = _attribute(TCA_KIND, b"matchall\0") + options
    info = PRIORITY << 16 | struct.unpack("=H", struct.pack("!H", ETH_P_ALL))[0]
    return _message(RTM_NEWTFILTER, NLM_F_CREATE, index, 0, INGRESS_HOOK, info, attributes)


def _ratespec(rate: int) -> bytes:
    # cell_log, linklayer, overhead, cell_align, mpu, rate.
    return struct.pack("=BBHhHI", 3, LINKLAYER_ETHERNET, 0, -1, 0, min(rate, _U32))


def _rate64(kind: int, rate: int) -> bytes:
    """From 4 GiB/s on, the rate has an attribute of its own."""
    return _attribute(kind, struct.pack("=Q", rate)) if rate > _U32 else b""


def _message(
    kind: int, flags: int, index: int, handle: int, parent: int, info: int, attributes: bytes
) -> bytes:
    body = struct.pack("=BxHiIII", 0, 0, index, handle, parent, info) + attributes
    flags |= NLM_F_REQUEST | NLM_F_ACK
    return struct.pack("=IHHII", 16 + len(body), kind, flags, 0, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)
