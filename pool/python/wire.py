"""One JSON message per packet on a control socket (SOCK_SEQPACKET), descriptors beside it (SCM_RIGHTS); and the
worker's channel, a stream. doc.go has the protocol."""
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


def read_request(fd):
    """Read "run", a line feed and the source, to the end of file; None when the worker is retired instead."""
    parts = []
    while part := os.read(fd, 1 << 16):
        parts.append(part)
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    return data[4:] if data.startswith(b"run\n") else None


def write_line(fd, message):
    os.write(fd, json.dumps(message).encode() + b"\n")
