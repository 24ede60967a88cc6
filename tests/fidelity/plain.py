"""Run a program as a plain unprivileged process without network: reads a specification from stdin, becomes it.

As root: a mount and a network namespace, then an unprivileged id. As an ordinary user the same in a user namespace,
where the id stays the caller's. Nothing else of the host is hidden: that is the point of this side.
"""

import ctypes
import fcntl
import json
import os
import resource
import signal
import socket
import struct
import sys

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
SIOCSIFFLAGS, IFF_UP_RUNNING = 0x8914, 0x41
# Nobody's: of `nobody` there may be other processes, which would count against RLIMIT_NPROC and could be signalled.
PLAIN_ID = 59_871
ACCOUNTS = {"/etc/passwd": f"plain:x:{PLAIN_ID}:{PLAIN_ID}:plain:/tmp:/bin/sh\n", "/etc/group": f"plain:x:{PLAIN_ID}:\n"}

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]


def check(result, step):
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{step}: {os.strerror(ctypes.get_errno())}")


def mount(source, target, kind, flags, data=None):
    encode = lambda text: None if text is None else os.fsencode(text)
    check(libc.mount(encode(source), encode(target), encode(kind), flags, encode(data)), f"mounting {target}")


def closed_above(path):
    """Return the first directory on the way to path that others may not walk, or None."""
    at = ""
    for name in path.strip("/").split("/"):
        at += "/" + name
        if not os.stat(at).st_mode & 0o001:
            return at
    return None


def open_ways(prefixes):
    """An interpreter may lie in a closed home (pyenv's): in our own mounts the home becomes empty but for it."""
    hidden = [(prefix, closed_above(prefix), os.open(prefix, os.O_PATH)) for prefix in prefixes]
    homes = {home for prefix, home, _ in hidden if home not in (None, prefix)}
    for home in homes:
        mount("tmpfs", home, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=755")
    for prefix, home, source in hidden:
        if home in homes:
            os.makedirs(prefix)
            mount(f"/proc/self/fd/{source}", prefix, None, MS_BIND | MS_REC)
        os.close(source)


def add_accounts():
    """An ordinary user is listed, so in our own mounts this one is."""
    for path, line in ACCOUNTS.items():
        with open(path) as f:
            text = f.read()
        beside = "/tmp/accounts"
        with open(beside, "w") as f:
            f.write(text.rstrip("\n") + "\n" + line)
        mount(beside, path, None, MS_BIND)
        os.unlink(beside)


def main():
    spec = json.load(sys.stdin)
    root = os.geteuid() == 0
    uid, gid = os.getuid(), os.getgid()
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWNET | (0 if root else CLONE_NEWUSER)), "unsharing namespaces")
    if not root:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w") as f:
                f.write(text)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    if root:
        open_ways(spec["prefixes"])
    mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, f"size={spec['tmp_mib']}m,mode=1777")
    if root:
        add_accounts()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP_RUNNING))
    for name, value in spec["rlimits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    if root:
        os.setgroups([])
        os.setresgid(PLAIN_ID, PLAIN_ID, PLAIN_ID)
        os.setresuid(PLAIN_ID, PLAIN_ID, PLAIN_ID)
    os.umask(0o022)
    os.chdir("/tmp")
    with open("main.py", "w") as f:
        f.write(spec["code"])
    # What is ignored stays so over exec: SIGPIPE by this interpreter, SIGINT by a shell that started us behind.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    os.execve(spec["python"], [spec["python"], "main.py"], spec["environment"])


try:
    main()
except Exception as error:
    print(f"plain.py: {error}", file=sys.stderr)
    sys.exit(127)
