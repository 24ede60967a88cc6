"""Unix sockets of programs in a sandbox without a mount namespace. Landlock does not restrict connecting by a path, and the address
lies in memory that another thread may change while the kernel reads it. So a program neither binds nor connects a unix socket itself:
its lane does both, with its own copy of the address, and only below the scratch directory of that program."""
import ctypes
import errno
import os
import stat
import struct

import _socket

import _sandbox_confine as confine

AF_UNIX, SO_DOMAIN = 1, 39
SYS_PIDFD_OPEN, SYS_PIDFD_GETFD, SYS_OPENAT2, PIDFD_THREAD = 434, 438, 437, os.O_EXCL
RESOLVE_NO_MAGICLINKS, RESOLVE_BENEATH = 2, 8
O_PATH, O_NOFOLLOW, O_CLOEXEC = os.O_PATH, os.O_NOFOLLOW, os.O_CLOEXEC


def bind(view, base, tid, number, address):
    """Bind a program's socket. Should the path lead elsewhere by then, Landlock still keeps the lane from making a socket outside of its
    own directory. The kernel keeps the path as it is given, in at most 107 bytes, so it is given relative to scratch."""
    path = _scratch_path(view, base, address, True)
    with _taken(tid, number) as s:
        os.chdir(view.scratch)
        try:
            s.bind(path[len(view.inside):])
        finally:
            os.chdir("/")


def name(view, tid, number, peer):
    """Return the address of a socket, or of its peer, as the program knows it."""
    with _taken(tid, number) as s:
        path = s.getpeername() if peer else s.getsockname()
    path = os.fsencode(path)
    if path[:1] not in (b"", b"\0", b"/"):
        path = view.shown + b"/" + path
    return struct.pack("=H", AF_UNIX) + (path + b"\0" if path else b"")


def connect(view, base, tid, number, address):
    """Connect a program's socket, through a descriptor of the other one, since the path may lead elsewhere a moment later."""
    path = _scratch_path(view, base, address, False)
    room = os.open(view.scratch, O_PATH | os.O_DIRECTORY | O_CLOEXEC)
    try:
        handle = open_beneath(room, path[len(view.inside):], O_PATH | O_NOFOLLOW | O_CLOEXEC)
    finally:
        os.close(room)
    try:
        if not stat.S_ISSOCK(os.fstat(handle).st_mode):
            raise OSError(errno.ECONNREFUSED, "")
        with _taken(tid, number) as s:
            _connect(s, b"/proc/self/fd/%d" % handle)
    finally:
        os.close(handle)


def open_beneath(directory, path, flags):
    """Open a path below a directory. Fails with EXDEV when a link in it leads outside (openat2(2))."""
    how = struct.pack("QQQ", flags, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    return _check(confine.libc.syscall(SYS_OPENAT2, directory, path, how, ctypes.c_size_t(len(how))))


def duplicate(tid, number):
    """Return a duplicate of a descriptor of another process (pidfd_getfd(2))."""
    handle = _check(confine.libc.syscall(SYS_PIDFD_OPEN, tid, PIDFD_THREAD))
    try:
        return _check(confine.libc.syscall(SYS_PIDFD_GETFD, handle, number, 0))
    finally:
        os.close(handle)


def _connect(s, path):
    """Connect without waiting: the process that is to accept may itself wait for an answer of this lane. When the queue is full, the
    program gets EAGAIN, as with a non-blocking socket."""
    waits = os.get_blocking(s.fileno())
    if waits:
        os.set_blocking(s.fileno(), False)
    try:
        s.connect(path)
    finally:
        if waits:
            os.set_blocking(s.fileno(), True)


def _scratch_path(view, base, address, makes):
    if len(address) < 3 or int.from_bytes(address[:2], "little") != AF_UNIX:
        raise OSError(errno.EACCES, "")
    if address[2] == 0:   # abstract names are shared with the host
        raise OSError(errno.EACCES if makes else errno.ECONNREFUSED, "")
    path = address[2:].split(b"\0")[0]
    whole = view.whole(path, base)
    meant = view.look(whole, None, makes)
    if isinstance(meant, int):
        raise OSError(meant, "")
    whole = meant or whole
    if not whole.startswith(view.inside):
        raise OSError(errno.EACCES, "")
    return whole


class _taken:
    """A unix socket, duplicated from a descriptor of another process."""

    def __init__(self, tid, number):
        fd = duplicate(tid, number)
        try:
            self.socket = _socket.socket(AF_UNIX, _socket.SOCK_STREAM, 0, fd)
            if self.socket.getsockopt(_socket.SOL_SOCKET, SO_DOMAIN) != AF_UNIX:
                raise OSError(errno.EACCES, "")
        except OSError:
            os.close(fd)
            raise

    def __enter__(self):
        return self.socket

    def __exit__(self, *_):
        self.socket.close()


def _check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "")
    return result
