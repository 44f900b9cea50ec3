"""The few network configuration requests that containers need, spoken to the kernel directly (rtnetlink).

A process of `ip` costs milliseconds; these cost microseconds.
"""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Address

_RTM_NEWLINK, _RTM_NEWADDR, _RTM_NEWROUTE = 16, 20, 24
_REQUEST, _ACK, _EXCLUSIVE, _CREATE = 0x1, 0x4, 0x200, 0x400
_NLMSG_ERROR = 2
_IFLA_IFNAME, _IFLA_MTU, _IFLA_LINKINFO, _IFLA_NET_NS_FD = 3, 4, 18, 28
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_OIF, _RTA_GATEWAY = 4, 5
_IFF_UP = 1
_TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_UNIVERSE, _UNICAST = 254, 4, 0, 1

_HEADER = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_ADDRESS = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=BBBBBBBBI")
_CODE = struct.Struct("=i")


class Netlink:
    """A connection to the network stack of the calling process's network namespace. Methods raise OSError."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.bind((0, 0))
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def create_veth(self, name: str, peer: str, namespace: int, mtu: int) -> None:
        """Make two connected interfaces: `name` here, `peer` in the network namespace `namespace` (a descriptor)."""
        size = _attribute(_IFLA_MTU, struct.pack("=I", mtu))
        peer_data = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + size
        peer_data += _text(_IFLA_IFNAME, peer) + _attribute(_IFLA_NET_NS_FD, struct.pack("=I", namespace))
        info = _text(_IFLA_INFO_KIND, "veth") + _attribute(_IFLA_INFO_DATA, _attribute(_VETH_INFO_PEER, peer_data))
        message = (
            _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
            + _text(_IFLA_IFNAME, name)
            + size
            + _attribute(_IFLA_LINKINFO, info)
        )
        self._request(_RTM_NEWLINK, message, _CREATE | _EXCLUSIVE)

    def link_up(self, name: str) -> None:
        self._request(_RTM_NEWLINK, _LINK.pack(socket.AF_UNSPEC, 0, socket.if_nametoindex(name), _IFF_UP, _IFF_UP))

    def add_address(self, name: str, local: IPv4Address, peer: IPv4Address) -> None:
        """Give interface `name` the address `local`, with `peer` alone at the other end."""
        message = _ADDRESS.pack(socket.AF_INET, 32, 0, _SCOPE_UNIVERSE, socket.if_nametoindex(name))
        message += _attribute(_IFA_LOCAL, local.packed) + _attribute(_IFA_ADDRESS, peer.packed)
        self._request(_RTM_NEWADDR, message, _CREATE | _EXCLUSIVE)

    def add_default_route(self, gateway: IPv4Address, name: str) -> None:
        message = _ROUTE.pack(socket.AF_INET, 0, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, _SCOPE_UNIVERSE, _UNICAST, 0)
        message += _attribute(_RTA_GATEWAY, gateway.packed)
        message += _attribute(_RTA_OIF, struct.pack("=I", socket.if_nametoindex(name)))
        self._request(_RTM_NEWROUTE, message, _CREATE | _EXCLUSIVE)

    def _request(self, kind: int, message: bytes, flags: int = 0) -> None:
        self._sequence += 1
        length = _HEADER.size + len(message)
        self._socket.sendall(_HEADER.pack(length, kind, _REQUEST | _ACK | flags, self._sequence, 0) + message)
        while True:
            reply = self._socket.recv(65536)
            _, reply_kind, _, sequence, _ = _HEADER.unpack_from(reply)
            if sequence == self._sequence and reply_kind == _NLMSG_ERROR:
                break
        (code,) = _CODE.unpack_from(reply, _HEADER.size)
        if code:
            raise OSError(-code, f"network configuration: {os.strerror(-code)}")


def _attribute(kind: int, value: bytes) -> bytes:
    length = 4 + len(value)
    return struct.pack("=HH", length, kind) + value + bytes(-length % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")
