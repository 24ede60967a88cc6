"""Sets modes and times of files for programs whose uid owns files of the host, in a sandbox without a mount namespace. Landlock does not
restrict that, so the filter asks the lane, which acts through a descriptor, and in scratch only: elsewhere the answer is EPERM, as for
a file of another user."""
import ctypes
import errno
import os
import stat
import struct

import _sandbox_confine as confine
import _sandbox_sockets as sockets
from _sandbox_system import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW

PERMISSIONS, OWNER_ALL = 0o777, 0o700


class Attributes:
    """asked is the Answers whose call is to be answered."""

    def __init__(self, asked):
        self.asked = asked
        self.calls = dict.fromkeys(("chmod", "fchmod", "fchmodat", "fchmodat2"), self._mode)
        self.calls.update(dict.fromkeys(("utime", "utimes", "futimesat", "utimensat"), self._times))

    def _mode(self, name, number, paths):
        values = self.asked.values
        if name == "fchmod":
            target, mode, flags = self._open_descriptor(values[0]), values[1], 0
        else:
            mode_at = paths[0][1] + 1
            mode, flags = values[mode_at], values[mode_at + 1] if name == "fchmodat2" else 0
            target = self._open(paths[0], flags)
        try:
            mode &= PERMISSIONS
            if stat.S_ISDIR(os.fstat(target).st_mode):
                mode |= OWNER_ALL   # Caddy, with the same uid, must be able to list it and count what it holds
            os.chmod(f"/proc/self/fd/{target}", mode)
        finally:
            os.close(target)
        self.asked.say(0)

    def _times(self, name, number, paths):
        values = self.asked.values
        times_at = paths[0][1] + 1
        flags = values[times_at + 1] if name == "utimensat" else 0
        times = self._read_times(name, values[times_at]) if values[times_at] else None   # None: now
        if name == "utimensat" and not values[paths[0][1]]:   # as futimens(3) calls it
            if flags:
                raise OSError(errno.EINVAL, "")
            target = self._open_descriptor(values[0])
        else:
            target = self._open(paths[0], flags)
        try:
            if confine.libc.utimensat(AT_FDCWD, b"/proc/self/fd/%d" % target, times, 0) < 0:
                raise OSError(ctypes.get_errno(), "")
        finally:
            os.close(target)
        self.asked.say(0)

    def _read_times(self, name, address):
        """Read two times from the memory of the program, and return them as struct timespec[2]."""
        size = 16 if name == "utime" else 32
        raw = self.asked.bytes(address, size)
        if len(raw) < size:
            raise OSError(errno.EFAULT, "")
        if name == "utimensat":
            return raw
        if name == "utime":   # seconds
            access, change = struct.unpack("=2q", raw)
            return struct.pack("=4q", access, 0, change, 0)
        access, access_part, change, change_part = struct.unpack("=4q", raw)   # microseconds
        if not (0 <= access_part < 10**6 and 0 <= change_part < 10**6):
            raise OSError(errno.EINVAL, "")
        return struct.pack("=4q", access, access_part * 1000, change, change_part * 1000)

    def _open(self, pair, flags):
        """Return a descriptor of the file that a path names."""
        asked, eyes = self.asked, self.asked.view
        path, base = asked.path(asked.values[pair[1]]), asked.base(pair[0])
        if not path:
            if flags & AT_EMPTY_PATH:
                return self._open_descriptor(asked.values[pair[0]])
            raise OSError(errno.ENOENT, "")
        meant = eyes.look(path, base)
        if isinstance(meant, int):
            raise OSError(meant, "")
        whole = meant or eyes.whole(path, base)
        if whole in asked.contents:
            raise OSError(errno.EPERM, "")
        if not eyes.in_scratch(whole):
            os.stat(whole)   # what is not there is not refused, but missing
            raise OSError(errno.EPERM, "")
        handle = asked.handle(whole, not flags & AT_SYMLINK_NOFOLLOW)
        if handle is None:   # a link leads out of scratch
            raise OSError(errno.EPERM, "")
        return handle

    def _open_descriptor(self, number):
        """Return a duplicate of a descriptor of the program."""
        fd = sockets.duplicate(self.asked.tid, number & 0xffffffff)
        if not self.asked.view.in_scratch(os.readlink(b"/proc/self/fd/%d" % fd)):
            os.close(fd)
            raise OSError(errno.EPERM, "")
        return fd
