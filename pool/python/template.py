"""The template: a fork server that imports once and runs no user code, ever. It forks lanes; lanes fork workers."""
import _signal
import gc
import os
import sys

import _sandbox_confine as confine
import _sandbox_frames as frames
import _sandbox_lane as lane
import _sandbox_pages as pages
import _sandbox_preload as preload
import _sandbox_processes as processes
import _sandbox_wire as wire
import _sandbox_worker as worker


def main(control, plan):
    """Serve until the control socket closes. Also the bottom frame of every lane and worker forked from here."""
    try:
        _default_signals()
        _start(control, plan)
    except BaseException as e:
        wire.send(control, wire.failure(*confine.describe(e)))
        os._exit(1)
    control, number = _serve(control, plan)   # returns in a lane
    lane.serve(control, plan, number)         # never returns


def _default_signals():
    """Reset signals to the defaults, whatever Caddy has inherited from its parent (nohup, say). SIGPIPE and SIGXFSZ stay ignored, as
    Python wants them, and Python's handler of SIGINT comes back in the workers only."""
    for number in range(1, _signal.NSIG):
        ignored = _signal.getsignal(number) is _signal.SIG_IGN and number not in (_signal.SIGPIPE, _signal.SIGXFSZ)
        if ignored or number == _signal.SIGINT:
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def _start(control, plan):
    def ask_for_map():
        wire.send(control, b"map")
        if not wire.receive(control)[0]:
            os._exit(0)

    os.umask(0o022)   # before directories are made that processes with other ids enter
    confine.enter_template(plan, ask_for_map)
    os.environ.pop("LD_BIND_NOW", None)
    # A pip that a program starts has no network. With one retry it fails at once, since it waits only before later ones. putenv
    # passes this on to child processes and leaves os.environ as it is.
    os.putenv("PIP_RETRIES", "1")
    os.putenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    if plan["view"]:
        import _sandbox_trial as trial
        if not trial.works(plan):
            plan["view"] = None
    if plan["semaphores"] and not plan["view"]:
        import _sandbox_semaphores
        _sandbox_semaphores.install()
    sys.path[:0] = plan["python_path"]
    preload.preload(plan)
    frames.find()
    preload.add_packages(plan["python_path"], plan["packages"])
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        # A thread does not survive fork, but a lock that it holds does.
        raise confine.ConfineError("preload", f"a preloaded module started {threads - 1} thread(s), and a process with "
                                   "threads cannot be forked safely; take it out of preload")
    sys.argv[:] = ["main.py"]
    worker.warm_up(plan["scratch"]["path"])
    gc.collect()
    gc.disable()   # workers enable it again
    if hasattr(confine.libc, "malloc_trim"):   # glibc
        confine.libc.malloc_trim(0)   # each resident page makes forks and exits a little slower
    pages.fill_holes()
    gc.freeze()    # the collector never visits these objects again, so their pages stay shared
    pages.collapse()
    pages.collapse_code()
    with open("/proc/self/statm") as f:
        data_bytes = int(f.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    for limit in plan["rlimits"]:
        if limit["above_template"]:
            limit["value"] += data_bytes   # what the template holds already does not count against a worker
    wire.send(control, b"ready")


def _serve(control, plan):
    """Fork a lane for each message that asks for one. Returns only in a lane, with its control socket and number."""
    # Go learns of a lane's end from the lane's own control socket. Ignoring SIGCHLD keeps it from becoming a zombie (wait(2), NOTES).
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    lanes = set()
    while True:
        words, fds = wire.receive(control)   # "lane", number; or "sweep"
        if not words:   # Caddy is gone
            if plan["world"] != "namespaces":
                _sweep(lanes)
            os._exit(0)   # with namespaces, this ends every lane and worker
        if words[0] == b"sweep":
            lanes = _sweep(lanes)
            continue
        number = int(words[1])
        try:
            pid = _fork_lane(control, plan, number)
        except OSError as e:   # the user has as many processes as allowed, say
            _refuse_lane(control, number, e)
        else:
            if pid == 0:
                return lane.adopt(fds[0]), number
            lanes.add(pid)
        os.close(fds[0])


def _sweep(lanes):
    """Without namespaces: kill the processes that a killed lane has left, which became children of the template, the next subreaper
    above it. Returns the lanes that still run."""
    for _ in range(1000):   # they may fork meanwhile
        children = processes.children(os.getpid())
        left = [pid for pid in children if pid not in lanes]
        if not left:
            break
        for top in left:
            for pid in [top, *processes.descendants(top)]:
                try:
                    os.kill(pid, processes.SIGKILL)
                except (ProcessLookupError, PermissionError):
                    pass
    return lanes.intersection(children)


def _fork_lane(control, plan, number):
    """Fork a lane. Returns 0 in the lane, and the pid of a child in the template. A process can unshare the pid namespace of its
    children only once, so a child of the template does it, forks the lane and exits. The lane then becomes a child of the template,
    which is pid 1 of its own namespace."""
    namespaces = plan["world"] == "namespaces"
    if not namespaces:
        return _fork_and_tell(control, number)
    middle = os.fork()
    if middle:
        return middle
    try:
        confine.unshare(["pid"])
        if _fork_and_tell(control, number) == 0:
            return 0
    except (OSError, confine.ConfineError) as e:
        _refuse_lane(control, number, e)
    os._exit(0)


def _fork_and_tell(control, number):
    pid = os.fork()
    if pid == 0:
        return 0
    # If one of these fails, the lane finds its control socket closed, and ends.
    handle = os.pidfd_open(pid)
    try:
        wire.send(control, b"lane %d" % number, handle)
    finally:
        os.close(handle)
    return pid


def _refuse_lane(control, number, error):
    wire.send(control, f"failed {number} {confine.describe(error)[1]}".encode())
