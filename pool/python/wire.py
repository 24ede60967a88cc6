"""Messages on control sockets (SOCK_SEQPACKET, where SCM_RIGHTS carries descriptors beside a packet) and on a worker's channel:
words and numbers, and JSON for the failure that ends a process. pool/doc.go describes the protocol."""
import struct

import _socket  # the C module: socket would also load selectors and enum, whose memory every fork would copy

MAX_MESSAGE = 64


def send(sock, word, fd=None):
    rights = [] if fd is None else [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))]
    sock.sendmsg([word], rights)


def receive(sock):
    """Return (words, descriptors), or ([], ()) when the other side is gone."""
    data, ancillary, _, _ = sock.recvmsg(MAX_MESSAGE, 64, _socket.MSG_CMSG_CLOEXEC)
    return data.split(), struct.unpack(f"{len(ancillary[0][2]) // 4}i", ancillary[0][2]) if ancillary else ()


def failure(step, error):
    """Return the JSON message of a process that could not get ready. The json module is not imported for it: the process may have
    entered its confinement by now, in which nobody answers yet."""
    return f'{{"event": "failed", "step": {_quoted(step)}, "error": {_quoted(error[-4000:])}}}'.encode()


def _quoted(text):
    return '"' + "".join(c if " " <= c <= "~" and c not in '"\\' else f"\\u{min(ord(c), 0xfffd):04x}" for c in text) + '"'
