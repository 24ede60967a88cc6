"""Applies the confinement plan that Go made. It decides nothing: every path, id, flag and limit is in the plan.

The order of the steps is the point; each says why it stands where it does. See user_namespaces(7), pid_namespaces(7),
capabilities(7).
"""
import ctypes
import os
import resource
import stat
import struct

import _socket

import _sandbox_root as root
from _sandbox_root import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY, mount
from _sandbox_system import AT_FDCWD, ConfineError, check, libc

# The functions that each run calls. PyDLL does not release the GIL, and they have no argument types and no copy of errno: all of
# these would write to pages that a fork shares with its parent.
set_dumpable, kill, wait, send, close, unlink, system_call, yield_processor, poll, receive_message = (
    ctypes.PyDLL(None)[name] for name in ("prctl", "kill", "wait4", "send", "close", "unlink", "syscall", "sched_yield", "poll", "recvmsg"))

CLONE = {"mount": 0x20000, "uts": 0x04000000, "ipc": 0x08000000, "user": 0x10000000, "pid": 0x20000000, "net": 0x40000000,
         "cgroup": 0x02000000}
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 4, 24, 36, 38
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}.get(os.uname().machine, -1)   # there are filters for these machines only
SECCOMP_SET_MODE_FILTER, NEW_LISTENER, WAIT_KILLABLE_RECV = 1, 1 << 3, 1 << 5
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446
LANDLOCK_RULE_PATH_BENEATH, LANDLOCK_RULE_NET_PORT, LANDLOCK_ACCESS_NET_CONNECT_TCP = 1, 2, 2
CAPABILITY_HEADER = struct.pack("Ii", 0x20080522, 0)  # version 3, this process
NO_CAPABILITIES = bytes(24)
SYS_STATX, STATX_BASIC_STATS = {"x86_64": 332, "aarch64": 291}, 0x7ff   # not every C library has a function for it


def unshare(names):
    flags = 0
    for name in names:
        flags |= CLONE[name]
    if flags:
        check(libc.unshare(flags), "unsharing namespaces: " + ", ".join(names))


def dumpable(on):
    check(libc.prctl(PR_SET_DUMPABLE, on, 0, 0, 0), "setting dumpable")


# --- the template: once ---------------------------------------------------------------------------------------------

def enter_template(plan, ask_for_map):
    """Move a template or an installer into its namespaces and its own root. ask_for_map returns when Go has written the id map."""
    if plan["world"] == "namespaces":
        root.enter(plan["root"])
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
        check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "becoming a subreaper")
        if plan["order"] == "root":
            os.setgroups([])
    os.chdir("/")


# --- a lane: once for many workers ------------------------------------------------------------------------------------

def enter_lane(plan, number, room=None):
    """Confine a lane or an installer's child, which with namespaces is the first process of a new pid namespace. What workers can
    inherit is set here, once. Returns what is left: the Landlock domain and the seccomp filter that each worker has to enter itself
    (None for nothing), and the descriptor of the notifications of the filter that asks Caddy. room is the directory that a lane
    without namespaces makes for its workers."""
    left = {"domain": None, "filter": None, "listener": None}
    own_id = plan["uid"] + number % plan["uids"]
    if plan["world"] == "namespaces":
        unshare(["mount", "net", "ipc"])
        libc.unshare(CLONE["cgroup"])   # or /proc/self/cgroup would show the host's. Not every kernel has such namespaces
        root.own(plan["root"]["binds"])
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        proc = os.open("/proc", os.O_PATH | os.O_CLOEXEC)
        _loopback_up()
        # Over the one that this lane writes to. Processes that a worker may not trace are hidden from it, this one among them. Read-only,
        # so that the modes and times of entries, some of which may belong to user code, stay.
        mount("proc", "/proc", "proc", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "hidepid=invisible")
        # Read-only, so that the mode of its multiplexer, which may belong to user code, stays. Terminals can be made and used all the same.
        mount("devpts", "/dev/pts", "devpts", MS_RDONLY | MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0600,max=64")
        for path in plan["masked"]:
            if os.path.isdir(path):
                mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0,mode=755")
            elif os.path.exists(path):
                mount("/dev/null", path, None, MS_BIND)
        root.mount_scratch(plan["scratch"]["path"], plan["scratch"]["options"])
        if plan["order"] == "root":
            # A host id that no other living lane has. The scratch directory itself still belongs to the template's id.
            _become(own_id)
        # The last namespace: the new user namespace owns none of the others, so from here on nothing can be mounted. It gives
        # this lane a process count of its own for RLIMIT_NPROC. setgroups is denied here, as in the user namespace around it.
        outside_uid, outside_gid = os.getuid(), os.getgid()
        unshare(["user"])
        _write("self/uid_map", b"%d %d 1" % (plan["inside"], outside_uid), proc)
        _write("self/gid_map", b"%d %d 1" % (plan["inside"], outside_gid), proc)
        os.close(proc)
        _bound_capabilities()
    else:
        check(libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "becoming a subreaper")
        if plan["order"] == "root":
            _bound_capabilities()
            _become(own_id)
        if room is not None:
            os.mkdir(room, 0o700)
    for limit in plan["rlimits"]:
        if plan["view"] and limit["name"] == "RLIMIT_NOFILE":
            continue   # workers set it (calls.py)
        set_limit(getattr(resource, limit["name"]), limit["value"])
    check(libc.capset(CAPABILITY_HEADER, NO_CAPABILITIES), "dropping capabilities")
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
    if plan["asking"]:
        left["listener"] = Filter(bytes.fromhex(plan["asking"])).listen()
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
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "setting no_new_privs")


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
        check(libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(self.program), 0, 0), "loading the seccomp filter")

    def listen(self):
        """Enter a filter that uses SECCOMP_RET_USER_NOTIF, and return the descriptor of its notifications. Returns None where the
        kernel refuses one, such as below a filter that has one already: then the calls in question fail with ENOSYS."""
        fd = self.enter_and_listen()
        if fd >= 0:
            return fd
        self.enter()
        return None

    def enter_and_listen(self):
        return libc.syscall(SYS_SECCOMP, SECCOMP_SET_MODE_FILTER, NEW_LISTENER | WAIT_KILLABLE_RECV, ctypes.byref(self.program))


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
        ruleset = check(syscall(SYS_LANDLOCK_CREATE_RULESET, attributes, ctypes.c_size_t(plan["attr_size"]), 0),
                         "making a Landlock ruleset")
        for fd, rule in self.rules:
            check(syscall(SYS_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_PATH_BENEATH, rule, 0), "adding a Landlock rule")
            os.close(fd)
        for port in plan["connect"]:
            check(syscall(SYS_LANDLOCK_ADD_RULE, ruleset, LANDLOCK_RULE_NET_PORT, struct.pack("=QQ", LANDLOCK_ACCESS_NET_CONNECT_TCP, port), 0),
                   "adding a Landlock rule")
        check(syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset, plan["flags"]), "entering the Landlock domain")
        os.close(ruleset)


def _become(number):
    os.setresgid(number, number, number)
    os.setresuid(number, number, number)
    dumpable(1)   # the id change has cleared it, and /proc/self/uid_map could not be opened


def _loopback_up():
    # The lane's network namespace has a loopback interface only: a program can connect to itself, and to nothing else.
    s = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    check(libc.ioctl(s.fileno(), 0x8914, struct.pack("16sh14x", b"lo", 0x41)), "setting loopback up")  # SIOCSIFFLAGS
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


def _write(path, text, directory=None):
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
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

