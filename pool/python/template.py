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
    """Only what Python itself ignores differs from the defaults: neither what Caddy's parent did to signals (nohup, say) nor a
    terminal's ^C, which is for Caddy, is a program's."""
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

    os.umask(0o022)   # before directories are made that other ids pass
    confine.enter_template(plan, ask_for_map)
    os.environ.pop("LD_BIND_NOW", None)
    # A pip that a program starts has no network: with one retry it says so at once, and waits only between later ones. putenv
    # passes that on to child processes and leaves os.environ as it is.
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
    gc.disable()   # in the workers it is on again
    if hasattr(confine.libc, "malloc_trim"):   # glibc
        confine.libc.malloc_trim(0)   # each page that is there costs a fork and an exit a little
    gc.freeze()    # what is here now is never looked at again, so its pages stay shared
    pages.collapse()
    with open("/proc/self/statm") as f:
        data_bytes = int(f.read().split()[5]) * os.sysconf("SC_PAGE_SIZE")
    for limit in plan["rlimits"]:
        if limit["above_template"]:
            limit["value"] += data_bytes   # what the template holds already is not the worker's to pay for
    wire.send(control, b"ready")


def _serve(control, plan):
    """Fork a lane for each message. Returns its control socket and number, in the lane."""
    # Go sees a lane's end on the lane's own control socket; here it must only not stay a zombie (wait(2), NOTES).
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    lanes = set()
    while True:
        words, fds = wire.receive(control)   # "lane", number; or "sweep"
        if not words:
            os._exit(0)   # Caddy is gone: this ends the pid namespace, and every lane and worker with it
        if words[0] == b"sweep":
            lanes = _sweep(lanes)
            continue
        number = int(words[1])
        pid = _fork_lane(control, plan, number)
        if pid == 0:
            return lane.adopt(fds[0]), number
        lanes.add(pid)
        os.close(fds[0])


def _sweep(lanes):
    """Without namespaces: kill what a lane has left that was killed itself. It came to us, as the next subreaper above."""
    for _ in range(1000):   # something may fork meanwhile
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
    """Return 0 in the new lane. A process can unshare its children's pid namespace only once, so a child of ours does it,
    forks the lane and leaves; the lane then is our child, since we are pid 1 here."""
    namespaces = plan["world"] == "namespaces"
    if namespaces:
        middle = os.fork()
        if middle:
            return middle
        confine.unshare(["pid"])
    pid = os.fork()
    if pid == 0:
        return 0
    handle = os.pidfd_open(pid)
    wire.send(control, b"lane %d" % number, handle)
    if namespaces:
        os._exit(0)
    os.close(handle)
    return pid
