"""Answers system calls of a worker's processes about which the seccomp filter asks the lane (seccomp_unotify(2)), in a sandbox
without a mount namespace. The filter asks about calls that name a path. Most continue unchanged. One with a path below /tmp is
repeated by the same process with the path of its scratch (tracing.py), so that the kernel checks the changed call like any other of
that process, against its Landlock domain. Only these calls the lane makes in the program's place: lookups, in scratch; setting
modes and times, in scratch (attributes.py); opening a synthetic file; and binding and connecting unix sockets (sockets.py)."""
import ctypes
import errno
import os
import stat
import struct

import _socket

import _sandbox_attributes as attributes
import _sandbox_confine as confine
import _sandbox_listings as listings
import _sandbox_pids as pids
import _sandbox_processes as processes
import _sandbox_sockets as sockets
import _sandbox_tracing as tracing
from _sandbox_system import AT_EMPTY_PATH, AT_FDCWD, AT_SYMLINK_NOFOLLOW

_library = ctypes.PyDLL(None)   # does not release the GIL, and has no argument types: a program waits for each of these calls
_ioctl, _read_memory, _write_memory = (_library[name] for name in ("ioctl", "process_vm_readv", "process_vm_writev"))

NOTIF_RECV, NOTIF_SEND, NOTIF_ADDFD = 0xc0502100, 0xc0182101, 0x40182103
CONTINUE, ADDFD_SEND = 1, 2
O_WRONLY, O_RDWR, O_CREAT, O_CLOEXEC, O_PATH = os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_CLOEXEC, os.O_PATH
SYS_FACCESSAT2 = 439
F_ADD_SEALS = 1033
TMPFS_MAGIC = struct.pack("=q", 0x01021994)


class _Message(ctypes.Structure):
    """struct msghdr"""
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint), ("parts", ctypes.c_void_p), ("part_count", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t), ("flags", ctypes.c_int)]


_byte, _control = ctypes.create_string_buffer(8), ctypes.create_string_buffer(24)
_part = tracing.Vector(ctypes.addressof(_byte), 1)
_message = _Message(None, 0, ctypes.addressof(_part), 1, ctypes.addressof(_control), 24, 0)
_message_at, _sent = ctypes.byref(_message), ctypes.c_int.from_buffer(_control, 16)   # behind struct cmsghdr
_CLOEXEC = int(_socket.MSG_CMSG_CLOEXEC)


def take(channel, flags):
    """Return the descriptor that a worker has sent, or -1 when there is none."""
    _message.control_length = 24
    if confine.receive_message(channel.fileno(), _message_at, flags | _CLOEXEC) <= 0 or _message.control_length == 0:
        return -1
    return _sent.value


class Filter(confine.Filter):
    """A seccomp filter that uses SECCOMP_RET_USER_NOTIF. enter sends the descriptor of its notifications to the lane."""

    def __init__(self, plan, channel):
        super().__init__(bytes.fromhex(plan["seccomp"]))
        self.channel, self.open_files = channel, plan["open_files"]

    def enter(self):
        fd = self.enter_and_listen()
        if fd < 0:
            raise confine.ConfineError("loading the seccomp filter", os.strerror(ctypes.get_errno()))
        try:
            self.channel.sendmsg([b"l"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))])
        finally:
            os.close(fd)   # a process that has its own listener would wait for itself, and for ever
        # Set only now: the kernel compares it with the descriptors that all processes of the user have in flight, those of other runs too.
        confine.set_limit(confine.resource.RLIMIT_NOFILE, self.open_files)


class Answers:
    """Answers calls of one lane's workers, one worker after the other."""

    def __init__(self, plan, eyes):
        self.view, self.listings = eyes, listings.Listings(eyes)
        self.calls = {call["number"]: (call["name"], [tuple(path) for path in call["paths"]]) for call in plan["calls"]}
        self.tracer, self.sessions = tracing.Tracer(plan["machine"]), pids.Sessions()
        self.request, self.reply = ctypes.create_string_buffer(80), ctypes.create_string_buffer(24)
        self.request_at, self.reply_at = ctypes.byref(self.request), ctypes.byref(self.reply)
        self.text = ctypes.create_string_buffer(4097)
        self.local, self.remote = tracing.Vector(ctypes.addressof(self.text), 4096), tracing.Vector(0, 4096)
        self.local_at, self.remote_at = ctypes.byref(self.local), ctypes.byref(self.remote)
        self.unpack, self.pack = struct.Struct("QIIiIQ6Q").unpack_from, struct.Struct("QqiI").pack_into
        self.answers = {
            "getcwd": self._getcwd, "bind": self._bind, "connect": self._connect, "getsockname": self._socket_name, "getpeername": self._socket_name, "readlink": self._readlink, "readlinkat": self._readlink,
            "symlink": self._symlink, "symlinkat": self._symlink, "statfs": self._statfs,
            "stat": self._stat, "lstat": self._stat, "newfstatat": self._stat, "fstatat": self._stat, "statx": self._stat,
            "access": self._access, "faccessat": self._access, "faccessat2": self._access,
            "open": self._open, "creat": self._open, "openat": self._open, "openat2": self._open,
        }
        self.answers.update(dict.fromkeys(pids.CALLS, self._pid), setsid=self._session)
        if plan["sets_attributes"]:
            self.answers.update(attributes.Attributes(self).calls)
        # Which argument of each of these is its buffer, the buffer's size in bytes, and which argument is its flags (0 for none).
        self.sized = {"stat": (1, 144, 0), "lstat": (1, 144, 0), "newfstatat": (2, 144, 3), "fstatat": (2, 128, 3), "statx": (4, 256, 2)}
        self.fstatat = next(number for number, (name, _) in self.calls.items() if name in ("newfstatat", "fstatat"))
        self.contents = {path: self._file(text) for path, text in eyes.files.items()}

    @staticmethod
    def _file(text):
        """Make a synthetic file, sealed and opened for reading. Each open by a program gets a new one, so none can leave anything there."""
        fd = os.memfd_create("file", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(fd, text)
        os.fchmod(fd, 0o444)
        confine.libc.fcntl(fd, F_ADD_SEALS, 15)   # F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_WRITE
        try:
            return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | O_CLOEXEC)
        finally:
            os.close(fd)

    # --- one question ---------------------------------------------------------------------------------------------------

    def answer(self):
        ctypes.memset(self.request, 0, 80)   # the kernel requires zeros
        if _ioctl(self.listener, NOTIF_RECV, self.request_at) < 0:
            return   # the process that asked has ended
        self.id, self.tid, _, number, _, _, *self.values = self.unpack(self.request)
        try:
            name, paths = self.calls[number]
            special = self.answers.get(name)
            if special:
                special(name, number, paths)
            else:
                self._plain(name, number, paths)
        except OSError as e:
            self.say(-(e.errno or errno.EIO))
        except Exception:   # whatever a program asks, its lane must go on
            self.say(-errno.EINVAL)

    def say(self, error, value=0, flags=0):
        self.pack(self.reply, 0, self.id, value, error, flags)
        _ioctl(self.listener, NOTIF_SEND, self.reply_at)

    def _go_on(self):
        self.pack(self.reply, 0, self.id, 0, 0, CONTINUE)
        _ioctl(self.listener, NOTIF_SEND, self.reply_at)

    def bytes(self, address, size):
        """Read at most size bytes from the memory of the process that asked."""
        self.remote.base, self.remote.length = address, size
        got = _read_memory(self.tid, self.local_at, 1, self.remote_at, 1, 0)
        return self.text.raw[:got] if got > 0 else b""

    def path(self, address):
        self.remote.base, self.remote.length = address, 256
        for size in (256, 4096):
            self.remote.length = size
            got = _read_memory(self.tid, self.local_at, 1, self.remote_at, 1, 0)
            if got <= 0:
                return b""   # a bad address: the kernel will report it
            self.text[got] = b"\0"
            path = self.text.value
            if len(path) < got:
                return path
        return b""

    def _write(self, address, data):
        ctypes.memmove(self.text, data, len(data))
        self.local.length, self.remote.base, self.remote.length = len(data), address, len(data)
        done = _write_memory(self.tid, self.local_at, 1, self.remote_at, 1, 0)
        self.local.length = 4096
        return done == len(data)

    def base(self, argument):
        def base():
            number = AT_FDCWD if argument < 0 else ctypes.c_int(self.values[argument] & 0xffffffff).value
            where = "cwd" if number == AT_FDCWD else f"fd/{number}"
            return os.readlink(b"/proc/%d/%s" % (self.tid, where.encode()))
        return base

    def _look(self, pair, makes=False):
        """Return what a path means. pair has the argument with the directory that it starts from, and the one with its address."""
        path = self.path(self.values[pair[1]])
        return self.view.look(path, self.base(pair[0]), makes) if path else None

    # --- what each call gets --------------------------------------------------------------------------------------------

    makers = {"mkdir", "mkdirat", "mknod", "mknodat", "symlink", "symlinkat"}

    def _plain(self, name, number, paths):
        changed = {}
        for i, pair in enumerate(paths):
            meant = self._look(pair, name in self.makers or i == 1)   # the second path is the new name of link and rename
            if meant is None:
                continue
            if isinstance(meant, int):
                return self.say(-meant)
            if meant in self.contents:
                return self.say(-errno.EACCES)
            changed[pair[1]] = meant
        if changed:
            self._again(number, changed, name in ("execve", "execveat"))
        else:
            self._go_on()

    def _open(self, name, number, paths):
        flags = O_CREAT if name == "creat" else 0 if name == "openat2" else self.values[paths[0][1] + 1]
        path, base = self.path(self.values[paths[0][1]]), self.base(paths[0][0])
        if name != "openat2" and not flags & (O_WRONLY | O_RDWR | O_CREAT | O_PATH) and self._open_closed(path, base, flags):
            return None
        meant = self.view.look(path, base, flags & O_CREAT) if path else None
        if meant is None:
            return self._go_on()
        if isinstance(meant, int):
            return self.say(-meant)
        if meant in self.contents:
            if name == "creat" or flags & (O_WRONLY | O_RDWR | os.O_DIRECTORY):
                return self.say(-errno.EACCES)
            return self._give(self._file(self.view.files[meant]), flags & O_CLOEXEC)
        try:
            waits = stat.S_ISFIFO(os.stat(meant).st_mode)   # until another process opens the other end
        except OSError:
            waits = False
        self._again(number, {paths[0][1]: meant}, waits=waits)

    def _open_closed(self, path, base, flags):
        """Open for a program what it may read and Landlock cannot give it: the names in a closed directory, and what /proc tells of other
        processes of its run. False for all else."""
        if (place := self.view.listed(path, base)) is not None:
            self._give(self.listings.open(place), flags & O_CLOEXEC)
            return True
        if path.startswith(b"/proc/") and (found := self.view.file_of_process(path)) is not None:
            pid, name = found
            pid = int(pid) if pid.isdigit() else processes.group_of(self.tid)
            if pid != self.tracer.child:   # the worker's own are among the rules of its domain, which its children have, too
                self._give(listings.open_of_process(pid, name), flags & O_CLOEXEC)
                return True
        return False

    def _give(self, fd, flags):
        """Answer with a duplicate of fd in the program, and close fd."""
        given = struct.pack("QIIII", self.id, ADDFD_SEND, fd, 0, flags)
        _ioctl(self.listener, NOTIF_ADDFD, ctypes.c_char_p(given))
        os.close(fd)

    def handle(self, meant, follow=True):
        """Return a descriptor (O_PATH) of what lies at a path below scratch, or of a synthetic file. None where a link leads out of
        scratch: the program must then make the call itself, since it and its lane may see different files there."""
        if meant in self.contents:
            return os.dup(self.contents[meant])
        room = os.open(self.view.scratch, O_PATH | O_CLOEXEC)
        try:
            return sockets.open_beneath(room, meant[len(self.view.inside):] or b".", O_PATH | O_CLOEXEC | (0 if follow else os.O_NOFOLLOW))
        except OSError as e:
            if e.errno not in (errno.EXDEV, errno.ELOOP):
                raise
            return None
        finally:
            os.close(room)

    def _stat(self, name, number, paths):
        """Answered by the lane itself, which is faster and safe for a lookup in scratch. So are access, statfs and readlink."""
        where, size, flags_at = self.sized[name]
        flags = self.values[flags_at] & 0xffffffff if flags_at else AT_SYMLINK_NOFOLLOW if name == "lstat" else 0
        handle = self._looked_at(number, paths, flags & AT_SYMLINK_NOFOLLOW == 0)
        if handle is None:
            return
        found = ctypes.create_string_buffer(size)
        try:
            if name == "statx":
                self._call(number, handle, b"", flags | AT_EMPTY_PATH, self.values[3] & 0xffffffff, found)
            else:
                self._call(self.fstatat, handle, b"", found, AT_EMPTY_PATH)
        finally:
            os.close(handle)
        self.say(0 if self._write(self.values[where], found.raw) else -errno.EFAULT)

    def _access(self, name, number, paths):
        mode = self.values[paths[0][1] + 1] & 7
        handle = self._looked_at(number, paths, True)
        if handle is None:
            return
        try:
            self._call(SYS_FACCESSAT2, handle, b"", mode, AT_EMPTY_PATH)
        finally:
            os.close(handle)
        self.say(0)

    def _statfs(self, name, number, paths):
        path = self.path(self.values[0])
        handle = self._looked_at(number, paths, True)
        if handle is None:
            return
        found = ctypes.create_string_buffer(120)
        try:
            self._call(number, b"/proc/self/fd/%d" % handle, found)
        finally:
            os.close(handle)
        # Up to 2.33, glibc makes semaphores and shared memory below /dev/shm only if that is a tmpfs.
        raw = TMPFS_MAGIC + found.raw[8:] if path.startswith(b"/dev/shm") else found.raw
        self.say(0 if self._write(self.values[1], raw) else -errno.EFAULT)

    def _looked_at(self, number, paths, follow):
        """Return a descriptor of what the call asks about; None when the call has been answered already."""
        meant = self._look(paths[0])
        if meant is None:
            self._go_on()
        elif isinstance(meant, int):
            self.say(-meant)
        elif not (meant in self.contents or self.view.in_scratch(meant)):
            self._again(number, {paths[0][1]: meant})
        else:
            handle = self.handle(meant, follow)
            if handle is None:
                self._again(number, {paths[0][1]: meant})
            return handle
        return None

    @staticmethod
    def _call(number, *arguments):
        if confine.libc.syscall(ctypes.c_long(number), *arguments) < 0:
            raise OSError(ctypes.get_errno(), "")

    def _pid(self, name, number, paths):
        error = pids.refused(name, self.values)
        self.say(-error) if error else self._go_on()

    def _session(self, name, number, paths):
        self._go_on() if self.sessions.grant(self.tid) else self.say(-errno.EPERM)

    def _getcwd(self, name, number, paths):
        here = os.readlink(b"/proc/%d/cwd" % self.tid)
        if here.endswith(b" (deleted)"):
            return self.say(-errno.ENOENT)
        shown = self.view.show(here) + b"\0"
        if self.values[1] < len(shown):
            return self.say(-errno.ERANGE)
        self.say(0, len(shown)) if self._write(self.values[0], shown) else self.say(-errno.EFAULT)

    def _readlink(self, name, number, paths):
        """A link in scratch holds the real path of its target; the program is given the path as it sees it."""
        path = self.path(self.values[paths[0][1]])
        base = self.base(paths[0][0])
        meant = self.view.look(path, base) if path else None
        if isinstance(meant, int):
            return self.say(-meant)
        if meant in self.contents:
            return self.say(-errno.EINVAL)
        whole = meant or (path if path[:1] == b"/" else os.path.join(base(), path))
        if not whole.startswith(self.view.inside):
            return self._again(number, {paths[0][1]: meant}) if meant else self._go_on()
        handle = self.handle(whole, False)
        if handle is None:
            return self._again(number, {paths[0][1]: whole})
        try:
            target = os.readlink(b"", dir_fd=handle)
        except FileNotFoundError:   # readlink(2) fails so for a descriptor of anything but a link
            return self.say(-errno.EINVAL)
        finally:
            os.close(handle)
        shown = self.view.show(target)[:self.values[paths[0][1] + 2]]
        self.say(0, len(shown)) if self._write(self.values[paths[0][1] + 1], shown) else self.say(-errno.EFAULT)

    def _symlink(self, name, number, paths):
        changed = {}
        target = self.path(self.values[0])
        if target[:1] == b"/":
            meant = self.view.look(target, None)
            if isinstance(meant, bytes) and meant not in self.contents:
                changed[0] = meant
        meant = self._look(paths[0], True)
        if isinstance(meant, int):
            return self.say(-meant)
        if meant in self.contents:
            return self.say(-errno.EEXIST)
        if meant is not None:
            changed[paths[0][1]] = meant
        self._again(number, changed) if changed else self._go_on()

    def _bind(self, name, number, paths):
        self._socket_call(sockets.bind)

    def _connect(self, name, number, paths):
        self._socket_call(sockets.connect)

    def _socket_name(self, name, number, paths):
        room = int.from_bytes(self.bytes(self.values[2], 4), "little")
        address = sockets.name(self.view, self.tid, self.values[0] & 0xffffffff, name == "getpeername")
        done = self._write(self.values[1], address[:room]) if room else True
        self.say(0 if done and self._write(self.values[2], struct.pack("=i", len(address))) else -errno.EFAULT)

    def _socket_call(self, call):
        """The lane makes the call: if the program continued, another thread could change the address, and Landlock checks no connect."""
        address = self.bytes(self.values[1], min(self.values[2] & 0xffffffff, 128))
        call(self.view, self.base(-1), self.tid, self.values[0] & 0xffffffff, address)
        self.say(0)

    def _again(self, number, changed, executes=False, waits=False):
        if not self.tracer.seize(self.tid):
            return self._go_on()   # it may not be traced: its call continues, with what the path means on the host
        self.say(0)   # the seized process stops before it sees this answer
        self.tracer.again(self.tid, number, self.values, changed, self._write, executes, waits)
