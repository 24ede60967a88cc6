"""What the control sockets (SOCK_SEQPACKET, descriptors beside a packet as SCM_RIGHTS) and a worker's channel carry: words
and numbers, and JSON for the failure that ends a process. doc.go has the protocol."""
import struct

import _socket  # the C module: the one around it brings selectors and enum, which every fork would copy

MAX_MESSAGE = 64


def send(sock, word, fd=None):
    rights = [] if fd is None else [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))]
    sock.sendmsg([word], rights)


def receive(sock):
    """Return (words, descriptors), or ([], ()) when the other side is gone."""
    data, ancillary, _, _ = sock.recvmsg(MAX_MESSAGE, 64, _socket.MSG_CMSG_CLOEXEC)
    return data.split(), struct.unpack(f"{len(ancillary[0][2]) // 4}i", ancillary[0][2]) if ancillary else ()


def failure(step, error):
    import json   # no user code has run yet

    return json.dumps({"event": "failed", "step": step, "error": error[-4000:]}).encode()
