"""What the kernel says about a tree of processes: who is in it, and what memory it holds."""

import pathlib
import time

PROC = pathlib.Path("/proc")


def descendants(root):
    """Return the pids of all processes below root."""
    children = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue  # it has ended since
        # The name, in parentheses, may itself hold spaces and parentheses.
        parent = int(stat[stat.rindex(")") + 2 :].split()[1])
        children.setdefault(parent, []).append(int(entry.name))
    found, open_ends = [], [root]
    while open_ends:
        below = children.get(open_ends.pop(), [])
        found += below
        open_ends += below
    return found


def await_settled(root, least, seconds=90):
    """Wait until the tree has at least that many processes and has stopped changing."""
    deadline = time.monotonic() + seconds
    previous, since = None, time.monotonic()
    while time.monotonic() < deadline:
        now = set(descendants(root))
        if now != previous:
            previous, since = now, time.monotonic()
        elif len(now) >= least and time.monotonic() - since >= 1:
            return sorted(now)
        time.sleep(0.1)
    return None


def memory(pids):
    """Return the proportional and the private memory of the processes together, in bytes."""
    pss = private = 0
    for pid in pids:
        for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            word, _, value = line.partition(":")
            if word == "Pss":
                pss += int(value.split()[0]) * 1024
            elif word in ("Private_Clean", "Private_Dirty"):
                private += int(value.split()[0]) * 1024
    return pss, private


def available():
    """Return the bytes that new processes can have before the machine swaps."""
    for line in (PROC / "meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def parked_worker(ours, preload):
    """Return what one more parked worker costs in memory.

    The figure is a slope: the memory of all processes below Caddy with FEW and
    with MANY parked workers, divided by the difference. So the template, the
    installer and whatever else exists once drop out, and no process has to be
    told from another. PSS is the headline: summed over a tree it counts each
    shared page once, so its growth is exactly the memory that the workers take
    beyond the template's, pages included that the template had to itself before
    a fork. Private pages alone would leave out what two workers share with each
    other but not with the template. What the kernel holds for a process (page
    tables, stacks) is in neither.
    """
    few, many = 8, 40
    sums = []
    for idle in (few, many):
        with ours.start(preload, idle=idle, templates=1) as server:
            pids = await_settled(server.process.pid, idle)
            if pids is None:
                return {"fault": f"the pool of {idle} parked workers did not settle"}
            try:
                pss, private = memory(pids)
            except OSError as e:
                return {"fault": f"reading memory: {e}"}
            sums.append((pss, private, len(pids)))
    (pss_few, private_few, count_few), (pss_many, private_many, count_many) = sums
    return {
        "pss_bytes": (pss_many - pss_few) / (many - few),
        "private_bytes": (private_many - private_few) / (many - few),
        "processes": (count_many - count_few) / (many - few),
        "pss_of_tree_bytes": {str(few): pss_few, str(many): pss_many},
    }
