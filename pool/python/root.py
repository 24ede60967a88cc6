"""Makes the root directory that programs see where there are mount namespaces: the template's, and from it each lane's. See mount(2),
mount_namespaces(7), pivot_root(2)."""
import os
import struct

from _sandbox_system import AT_FDCWD, check, libc

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
SYS_MOUNT_SETATTR, AT_RECURSIVE = 442, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
LAYER = "/run"   # in the template's root, what a lane makes its own from; in a lane's an empty directory


def mount(source, target, kind, flags, data=None):
    encode = lambda s: None if s is None else os.fsencode(s)
    check(libc.mount(encode(source), encode(target), encode(kind), flags, encode(data)), f"mounting {target}")


def enter(root):
    """Make the root of a template or an installer, and enter it."""
    # The mounts below must not propagate to the host.
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    # Sources are opened before the mount below, which may cover one of them.
    sources = [(b, os.open(b["source"], os.O_PATH | os.O_CLOEXEC)) for b in root["binds"]]
    contents = [(f["target"], f["mode"], _content(f)) for f in root["files"]]
    new = root["mount_point"]
    mount("tmpfs", new, "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=755")
    for path in root["dirs"]:
        os.makedirs(new + path, exist_ok=True)
    for target, mode, content in contents:
        if content is None:
            continue
        os.makedirs(os.path.dirname(new + target), exist_ok=True)
        with open(new + target, "wb") as f:
            f.write(content)
        os.chmod(new + target, mode)
    for link in root["links"]:
        os.makedirs(os.path.dirname(new + link["target"]), exist_ok=True)
        os.symlink(link["to"], new + link["target"])
    for bind, fd in sources:
        target = new + bind["target"]
        if bind["dir"]:
            os.makedirs(target, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            if not os.path.exists(target):
                open(target, "w").close()
        mount(f"/proc/self/fd/{fd}", target, None, MS_BIND | MS_REC)
        os.close(fd)
        _restrict(target, bind)
    # What each lane makes a root of its own from: an overlay's layer may have no mounts below that a user namespace must not uncover.
    mount(new, new + LAYER, None, MS_BIND)
    # While the old /proc is still visible: without it, the kernel refuses a user namespace a new one.
    mount("proc", new + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    pivot(new)
    mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def pivot(new):
    os.chdir(new)
    check(libc.pivot_root(b".", b"."), "pivot_root")
    # The old root is now mounted over the new one (pivot_root(2), NOTES), and is detached.
    check(libc.umount2(b".", MNT_DETACH), "leaving the old root")
    os.chdir("/")


def mount_scratch(path, options):
    mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options)


def unmount(path):
    check(libc.umount2(os.fsencode(path), MNT_DETACH), f"unmounting {path}")


def _content(file):
    if file.get("copy"):
        try:
            with open(file["copy"], "rb") as f:
                return f.read(4 << 20)
        except OSError:
            return None
    return file["content"].encode()


def _restrict(target, bind):
    """Make a bind mount read-only unless it is a device or writable by the plan. Submounts are included since Linux 5.12
    (mount_setattr(2)); before, a remount leaves them as they are."""
    # A read-only mount would refuse writes to devices such as /dev/null on some kernels.
    flags = MOUNT_ATTR_NOSUID if bind["device"] else MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    if bind["writable"]:
        flags &= ~MOUNT_ATTR_RDONLY
    attributes = struct.pack("QQQQ", flags, 0, 0, 0)
    if libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(target), AT_RECURSIVE, attributes, len(attributes)) == 0:
        return
    # In a user namespace a remount may not drop flags that the host has set, so they are repeated.
    kept = os.statvfs(target).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
    mount(None, target, None, MS_REMOUNT | MS_BIND | kept | flags)


def own(binds):
    """Give a lane a root of its own: an overlay of the template's, and in it one of each directory that all lanes read. Their files have
    other inodes, so two runs cannot signal to each other by locks on the same file. User namespaces may mount overlays since Linux 5.11;
    where that is refused, a run sees the locks of others (docs/security.md)."""
    new, empty = "/tmp", LAYER + LAYER   # directories that hold nothing yet
    mount("tmpfs", empty, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV)   # a layer may not lie within another one of the same file system
    if not _overlay(LAYER, empty, new):
        unmount(empty)
        mount("tmpfs", LAYER, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV)
        return
    mounted = _mount_points()
    for bind in binds:
        path = bind["target"]
        if bind["dir"] and not bind["writable"] and _overlay(path, empty, new + path):
            for below in mounted:   # an overlay leaves out what is mounted below the directory
                if below.startswith(path + "/"):
                    mount(below, new + below, None, MS_BIND)
        else:
            mount(path, new + path, None, MS_BIND | MS_REC)
    mount("/proc", new + "/proc", None, MS_BIND | MS_REC)
    pivot(new)


def _overlay(lower, empty, target):
    """Mount an overlay of a directory, and return whether that is done. One without an upper layer needs two lower ones, so the other is
    an empty directory."""
    if set(lower) & set(":,\\"):
        return False   # these characters separate mount options and layers
    options = f"lowerdir={lower}:{empty}"
    return libc.mount(b"overlay", os.fsencode(target), b"overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, os.fsencode(options)) == 0


def _mount_points():
    """Return the paths of all mounts, those above before those below (proc_pid_mountinfo(5))."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        paths = [line.split(" ", 5)[4] for line in f]
    for escape, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        paths = [path.replace(escape, character) for path in paths]
    return sorted(paths)
