"""Applies the confinement plan that Go made. It decides nothing: every path, id, flag and limit is in the plan.

The order of the steps is the point; each says why it stands where it does. See mount(2), pivot_root(2),
user_namespaces(7), pid_namespaces(7), capabilities(7).
"""
import ctypes
import os
import resource
import stat
import struct

import _socket

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
# The functions that each run calls. PyDLL does not release the GIL, and they have no argument types and no copy of errno: all of
# these would write to pages that a fork shares with its parent.
set_dumpable, kill, wait, send, close, unlink, system_call, yield_processor, poll, receive_message = (
    ctypes.PyDLL(None)[name] for name in ("prctl", "kill", "wait4", "send", "close", "unlink", "syscall", "sched_yield", "poll", "recvmsg"))

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
CLONE = {"mount": 0x20000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000}
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 4, 24, 36, 38
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, NEW_LISTENER, WAIT_KILLABLE_RECV = {"x86_64": 317, "aarch64": 277}, 1, 1 << 3, 1 << 5
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_RULE_PATH_BENEATH, LANDLOCK_RULE_NET_PORT, LANDLOCK_ACCESS_NET_CONNECT_TCP = 1, 2, 2
CAPABILITY_HEADER = struct.pack("Ii", 0x20080522, 0)  # version 3, this process
NO_CAPABILITIES = bytes(24)
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000
SYS_STATX, STATX_BASIC_STATS = {"x86_64": 332, "aarch64": 291}, 0x7ff   # not every C library has a function for it
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4


class ConfineError(Exception):
    """A step of the plan that the system refused."""

    def __init__(self, step, error):
        super().__init__(f"{step}: {error}")
        self.step = step
        self.error = str(error)


def _check(result, step):
    if result < 0:
        raise ConfineError(step, os.strerror(ctypes.get_errno()))
    return result


def _mount(source, target, kind, flags, data=None):
    encode = lambda s: None if s is None else os.fsencode(s)
    _check(libc.mount(encode(source), encode(target), encode(kind), flags, encode(data)), f"mounting {target}")


def unshare(names):
    flags = 0
    for name in names:
        flags |= CLONE[name]
    if flags:
        _check(libc.unshare(flags), "unsharing namespaces: " + ", ".join(names))


def dumpable(on):
    _check(libc.prctl(PR_SET_DUMPABLE, on, 0, 0, 0), "setting dumpable")


# --- the template: once ---------------------------------------------------------------------------------------------

def enter_template(plan, ask_for_map):
    """Move a template or an installer into its namespaces and its own root. ask_for_map returns when Go has written the id map."""
    if plan["world"] == "namespaces":
        _enter_root(plan["root"])
        if plan["order"] == "root":
            # The mounts above were made with root's full rights, so that an interpreter below a home directory of mode 0700
            # is reached. From here on all ids are unprivileged ids of the host, and only a process outside, Caddy, may map them.
            os.setgroups([])
            unshare(["user"])
            ask_for_map()
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            # The id change has cleared the dumpable attribute. Without it, files such as /proc/self/uid_map belong to the
            # host's root, and neither this process nor its lanes could open them (proc(5)).
            dumpable(1)
            # After the user namespace, so that it owns these namespaces.
            unshare(["mount", "net", "ipc", "uts"])
        _socket.sethostname("sandbox")
    else:
        _check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "becoming a subreaper")
        if plan["order"] == "root":
            os.setgroups([])
    os.chdir("/")


def _enter_root(root):
    # The mounts below must not propagate to the host.
    _mount(None, "/", None, MS_REC | MS_PRIVATE)
    # Sources are opened before the mount below, which may cover one of them.
    sources = [(b, os.open(b["source"], os.O_PATH | os.O_CLOEXEC)) for b in root["binds"]]
    contents = [(f["target"], f["mode"], _content(f)) for f in root["files"]]
    new = root["mount_point"]
    _mount("tmpfs", new, "tmpfs", MS_NOSUID | MS_NODEV, "size=16m,mode=755")
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
        _mount(f"/proc/self/fd/{fd}", target, None, MS_BIND | MS_REC)
        os.close(fd)
        _restrict(target, bind)
    # While the old /proc is still visible: without it, the kernel refuses a user namespace a new one.
    _mount("proc", new + "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    os.chdir(new)
    _check(libc.pivot_root(b".", b"."), "pivot_root")
    # The old root is now mounted over the new one (pivot_root(2), NOTES), and is detached.
    _check(libc.umount2(b".", MNT_DETACH), "leaving the old root")
    os.chdir("/")
    _mount(None, "/", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV)


def mount_scratch(path, options):
    _mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options)


def unmount(path):
    _check(libc.umount2(os.fsencode(path), MNT_DETACH), f"unmounting {path}")


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
    _mount(None, target, None, MS_REMOUNT | MS_BIND | kept | flags)


# --- a lane: once for many workers ------------------------------------------------------------------------------------

def enter_lane(plan, number, room=None):
    """Confine a lane or an installer's child, which with namespaces is the first process of a new pid namespace. What workers can
    inherit is set here, once. Returns what is left: the Landlock domain and the seccomp filter that each worker has to enter itself
    (None for nothing), and the descriptor of the memfd filter's notifications. room is the directory that a lane without namespaces
    makes for its workers."""
    left = {"domain": None, "filter": None, "listener": None}
    own_id = plan["uid"] + number % plan["uids"]
    if plan["world"] == "namespaces":
        unshare(["mount", "net", "ipc"])
        _own_inodes([bind["target"] for bind in plan["root"]["binds"] if bind["dir"] and not bind["writable"]])
        # Processes that a worker may not trace are hidden from it, this one among them.
        _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=invisible")
        _loopback_up()
        # Read-only, so that the mode of its multiplexer, which may belong to user code, stays. Terminals can be made and used all the same.
        _mount("devpts", "/dev/pts", "devpts", MS_RDONLY | MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0600,max=64")
        for path in plan["masked"]:
            if os.path.isdir(path):
                _mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,mode=755")
            elif os.path.exists(path):
                _mount("/dev/null", path, None, MS_BIND)
        mount_scratch(plan["scratch"]["path"], plan["scratch"]["options"])
        if plan["order"] == "root":
            # A host id that no other living lane has. The scratch directory itself still belongs to the template's id.
            _become(own_id)
        # The last namespace: the new user namespace owns none of the others, so from here on nothing can be mounted. It gives
        # this lane a process count of its own for RLIMIT_NPROC. setgroups is denied here, as in the user namespace around it.
        outside_uid, outside_gid = os.getuid(), os.getgid()
        unshare(["user"])
        _write("/proc/self/uid_map", b"%d %d 1" % (plan["inside"], outside_uid))
        _write("/proc/self/gid_map", b"%d %d 1" % (plan["inside"], outside_gid))
        _bound_capabilities()
    else:
        _check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "becoming a subreaper")
        if plan["order"] == "root":
            _bound_capabilities()
            _become(own_id)
        if room is not None:
            os.mkdir(room, 0o700)
    for limit in plan["rlimits"]:
        if plan["view"] and limit["name"] == "RLIMIT_NOFILE":
            continue   # workers set it (calls.py)
        set_limit(getattr(resource, limit["name"]), limit["value"])
    _check(libc.capset(CAPABILITY_HEADER, NO_CAPABILITIES), "dropping capabilities")
    no_new_privileges()
    # Workers have the same uid as this lane. Since it is not dumpable, they can neither trace it nor read its memory. A worker makes
    # itself dumpable again.
    dumpable(0)
    if plan["landlock"]["abi"]:
        domain = Domain(plan["landlock"])
        if plan["world"] == "namespaces":
            domain.allow(plan["scratch"]["path"], plan["landlock"]["scratch"])
            domain.enter()   # after the last mount: a process in a domain may not mount
        else:
            left["domain"] = domain
            if room is not None:
                # A lane acts on paths that its workers choose: it removes files, and binds sockets and looks up files for them.
                # Its own domain confines that to its room and the plan's rules for lanes, and scopes its signals, so that its
                # kill(-1) reaches only what it has forked.
                own = Domain(plan["landlock"])
                own.allow(room, plan["landlock"]["scratch"])
                for rule in plan["landlock"]["lane"]:
                    own.allow(rule["path"], rule["access"], rule["kind"] == "dir")
                own.enter()
            elif plan["landlock"]["scoped"]:
                # A domain that only scopes signals, so that kill(-1) reaches only what this process has forked.
                Domain({**plan["landlock"], "handled_fs": 0, "handled_net": 0, "rules": [], "connect": []}).enter()
    if plan["memfds"]:
        left["listener"] = Filter(bytes.fromhex(plan["memfds"])).listen()
    if plan["seccomp"]:
        filter = Filter(bytes.fromhex(plan["seccomp"]))
        if plan["world"] == "namespaces":
            filter.enter()
        else:
            left["filter"] = filter
    return left


def set_limit(number, value):
    _, hard = resource.getrlimit(number)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)  # a lower limit of the operator stays
    resource.setrlimit(number, (value, value))


def no_new_privileges():
    _check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "setting no_new_privs")


def _own_inodes(paths):
    """Cover directories that all lanes read with an overlay of this lane's own. Its files have other inodes, so two runs cannot
    signal to each other by locks on the same file. User namespaces may mount overlays since Linux 5.11; where that is refused, a run
    sees the locks of others (docs/security.md)."""
    for path in paths:
        if set(path) & set(":,\\"):
            continue   # these characters separate mount options and layers
        options = f"lowerdir={path}:/run"   # /run is empty: an overlay without an upper layer needs two lower ones
        if libc.mount(b"overlay", os.fsencode(path), b"overlay", MS_RDONLY | MS_NOSUID | MS_NODEV, os.fsencode(options)) < 0:
            return


def _bound_capabilities():
    """Empty the bounding set, so that no exec can give a capability. This needs CAP_SETPCAP, so it comes before capset."""
    for capability in range(64):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            break   # the kernel knows no capability with this number


class Filter:
    """A seccomp filter. It is entered last, since it refuses most system calls of the earlier steps."""

    class _Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    def __init__(self, program):
        self.program = Filter._Program(len(program) // 8, program)

    def enter(self):
        _check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(self.program), 0, 0), "loading the seccomp filter")

    def listen(self):
        """Enter a filter that uses SECCOMP_RET_USER_NOTIF, and return the descriptor of its notifications. Returns None where the
        kernel refuses one, such as below a filter that has one already: then the calls in question fail with ENOSYS."""
        fd = libc.syscall(SYS_SECCOMP[os.uname().machine], SECCOMP_SET_MODE_FILTER, NEW_LISTENER | WAIT_KILLABLE_RECV, ctypes.byref(self.program))
        if fd >= 0:
            return fd
        self.enter()
        return None


class Domain:
    """A Landlock domain (landlock(7)), made of the plan's rules. With namespaces the lane enters it once. Without, each worker
    enters one of its own, so that it cannot signal its lane and can read only its own directory of /proc."""

    def __init__(self, plan):
        self.plan = plan
        self.rules = []
        for rule in plan["rules"]:
            self.allow(rule["path"], rule["access"], rule["kind"] == "dir")

    def allow(self, path, access, is_dir=True):
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            return   # what is not there needs no rule
        if stat.S_ISDIR(os.fstat(fd).st_mode) == is_dir:
            self.rules.append((fd, struct.pack("=Qi", access, fd)))
        else:
            os.close(fd)

    def enter(self):
        plan, syscall = self.plan, libc.syscall
        attributes = struct.pack("QQQ", plan["handled_fs"], plan["handled_net"], plan["scoped"])
        ruleset = _check(syscall(SYS_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(plan["attr_size"]), 0),
                         "making a Landlock ruleset")
        for fd, rule in self.rules:
            _check(syscall(SYS_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0), "adding a Landlock rule")
            os.close(fd)
        for port in plan["connect"]:
            _check(syscall(SYS_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_NET_PORT, struct.pack("=QQ", LANDLOCK_ACCESS_NET_CONNECT_TCP, port), 0),
                   "adding a Landlock rule")
        _check(syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset, plan["flags"]), "entering the Landlock domain")
        os.close(ruleset)


def _become(number):
    os.setresgid(number, number, number)
    os.setresuid(number, number, number)
    dumpable(1)   # the id change has cleared it, and /proc/self/uid_map could not be opened


def _loopback_up():
    # The lane's network namespace has a loopback interface only: a program can connect to itself, and to nothing else.
    s = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    _check(libc.ioctl(s.fileno(), 0x8914, struct.pack("16sh14x", b"lo", 0x41)), "setting loopback up")  # SIOCSIFFLAGS
    s.close()
    for setting, value in (
            ("ipv4/tcp_max_tw_buckets", b"0"),   # no TIME_WAIT: a port that one run has closed must be free for the next one
            # Senders of datagrams wait for memory, which they do before the kernel checks how many descriptors are in flight, and not
            # for a place in the receiver's queue, which they do after it: the check would not see those of all that wait.
            ("unix/max_dgram_qlen", b"%d" % 0x7fffffff),
            # Bytes: least, at first, most. What lies in these buffers is in no process's size.
            ("ipv4/tcp_rmem", b"4096 131072 262144"), ("ipv4/tcp_wmem", b"4096 65536 262144")):
        _write("/proc/sys/net/" + setting, value)


# --- a worker: each one -----------------------------------------------------------------------------------------------

def enter_worker(domain, filter, scratch, processes):
    """Finish the confinement of a dumpable worker, which has inherited the rest from its lane. domain and filter are None with namespaces:
    only without them may a lane do more than its workers. processes is the RLIMIT_NPROC to set where processes outside of the lane
    have the same uid, else 0."""
    if domain is not None:
        for rule in domain.plan["own_proc"]:
            domain.allow(rule["path"], rule["access"], rule["kind"] == "dir")
        domain.allow(scratch, domain.plan["scratch"])
        domain.enter()
    if processes:
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    if filter is not None:
        filter.enter()


def _write(path, text):
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text)
        finally:
            os.close(fd)
    except OSError as e:
        raise ConfineError(f"writing {path}", e.strerror) from None


def describe(error):
    """Return (step, error), which tell Go of an exception during confinement."""
    if isinstance(error, ConfineError):
        return error.step, error.error
    return "confining", f"{type(error).__name__}: {error}"

