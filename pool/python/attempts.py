"""The probe, a program that is run in a worker when a pool starts. It tries what each guarantee forbids and prints what it could do.
Where no layer stops it, it does no harm: it only looks, opens and connects, and removes what it makes."""
import ctypes
import errno
import json
import os
import resource
import socket

host = json.loads(HOST)   # noqa: F821  Go defines HOST before this text: what it has made outside of the sandbox
libc = ctypes.CDLL(None, use_errno=True)
could = {}


def attempt(guarantee, what, call):
    try:
        result = call()
    except (OSError, ValueError, KeyError):
        return
    if result is not False and not (isinstance(result, int) and not isinstance(result, bool) and result < 0):
        could.setdefault(guarantee, []).append(what)


def make(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    os.unlink(path)


def connect(family, address):
    with socket.socket(family) as s:
        s.settimeout(1)
        s.connect(address)


def in_child(call):
    """Whether call returns 0 in a forked process, which then ends."""
    pid = os.fork()
    if pid == 0:
        os._exit(0 if call() == 0 else 1)
    return os.waitpid(pid, 0)[1] == 0


def capabilities():
    with open("/proc/self/status") as f:
        status = dict(line.rstrip().split(":\t", 1) for line in f if ":\t" in line)
    return any(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"))


def upper_layer():
    """Whether the kernel looks for an upper layer of TCP: it knows none of that name, and then fails with ENOENT."""
    with socket.socket() as s:
        try:
            s.setsockopt(socket.IPPROTO_TCP, 31, b"sandbox-probe")
        except OSError as e:
            return e.errno == errno.ENOENT


def shared_memory():
    number = libc.shmget(0, 4096, 0o600)
    if number >= 0:
        libc.shmctl(number, 0, None)   # IPC_RMID
    return number


attempt("reads", "read a file of the host", lambda: open(host["secret"]).close())
attempt("reads", "list a directory of the host", lambda: os.listdir(host["directory"]) and None)
attempt("writes", "make a file in a directory of the host", lambda: make(host["directory"] + "/probe"))
attempt("writes", "make a file beside the standard library", lambda: make(os.path.dirname(os.__file__) + "/sandbox-probe"))
attempt("network", "connect to a TCP port of the host", lambda: connect(socket.AF_INET, ("127.0.0.1", host["port"])))
attempt("network", "connect to a socket of the host", lambda: connect(socket.AF_UNIX, host["socket"]))
attempt("network", "connect to an abstract socket of the host", lambda: connect(socket.AF_UNIX, "\0" + host["abstract"]))
attempt("processes", "signal the server", lambda: os.kill(host["pid"], 0))
attempt("processes", "read the server's environment", lambda: open(f"/proc/{host['pid']}/environ").close())
attempt("processes", "trace its parent", lambda: libc.ptrace(0x4206, os.getppid() or 1, 0, 0))
attempt("privilege", "be root", lambda: 0 in os.getresuid())
attempt("privilege", "use capabilities", capabilities)
attempt("privilege", "gain privilege by an exec", lambda: libc.prctl(39, 0, 0, 0, 0) != 1)
if host["seccomp"]:
    attempt("privilege", "make a user namespace", lambda: in_child(lambda: libc.unshare(0x10000000)))
    # Kernel interfaces whose recent faults gave root to any process that could use them: CVE-2026-31431, 43500, 43284, 46300.
    attempt("privilege", "use the kernel's ciphers (AF_ALG)", lambda: socket.socket(38, socket.SOCK_SEQPACKET).close())
    attempt("privilege", "speak RxRPC (AF_RXRPC)", lambda: socket.socket(33, socket.SOCK_DGRAM, socket.AF_INET).close())
    attempt("privilege", "set up IPsec (NETLINK_XFRM)", lambda: socket.socket(16, socket.SOCK_RAW, 6).close())
    attempt("privilege", "put another layer on TCP (TCP_ULP)", upper_layer)
for name in ("RLIMIT_DATA", "RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_NPROC"):
    attempt("bounds", f"go on without {name}", lambda: resource.RLIM_INFINITY in resource.getrlimit(getattr(resource, name)))
if host["seccomp"]:
    attempt("leftovers", "make shared memory that outlives it", shared_memory)
attempt("leftovers", "find files of another run", lambda: os.listdir(".") != ["main.py"])
print(json.dumps(could))
