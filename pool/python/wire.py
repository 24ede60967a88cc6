"""One JSON message per packet on a control socket (SOCK_SEQPACKET), descriptors beside it (SCM_RIGHTS)."""
import json
import os
import socket

MAX_MESSAGE = 1 << 16


def send(sock, message, fds=()):
    data = json.dumps(message).encode()
    if fds:
        socket.send_fds(sock, [data], fds)
    else:
        sock.send(data)


def receive(sock, max_fds=8):
    """Return (message, descriptors), or (None, []) when the other side is gone."""
    data, fds, _, _ = socket.recv_fds(sock, MAX_MESSAGE, max_fds, socket.MSG_CMSG_CLOEXEC)
    if not data:
        for fd in fds:
            os.close(fd)
        return None, []
    return json.loads(data), fds


def read_line(fd, limit):
    """Read one JSON line from a stream; None at end of file."""
    parts, size = [], 0
    while True:
        part = os.read(fd, 1 << 16)
        if not part:
            return None
        parts.append(part)
        size += len(part)
        if part.endswith(b"\n"):
            return json.loads(b"".join(parts))
        if size > limit:
            raise ValueError("line too long")


def write_line(fd, message):
    os.write(fd, json.dumps(message).encode() + b"\n")
