"""The template's pages, arranged so that forks below it cost little: what a fork and the end of a process cost goes by the
number of pages that are mapped. Where the kernel refuses any of it, forks are slower and that is all."""
import ctypes
import os

import _sandbox_confine as confine

libc = confine.libc
libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
PAGE, HUGE = os.sysconf("SC_PAGE_SIZE"), 1 << 21
MADV_DONTNEED, MADV_DONTDUMP, MADV_COLLAPSE = 4, 16, 25   # the last one since Linux 6.1


def _mappings():
    with open("/proc/self/maps") as f:
        for line in f.readlines():   # all at once: what is mapped meanwhile does not matter
            fields = line.split(None, 5)
            start, end = (int(address, 16) for address in fields[0].split("-"))
            yield start, end, fields


def share_page_tables(rehearse):
    """Make fork copy the page tables of mapped files, so that a worker takes no faults for the code that every run needs. The
    kernel leaves them out for a mapping that was never written to (vma_needs_copy in its mm/memory.c), so one byte of each
    is written, with the value that it has. Returns the ranges that no run needs: what is mapped there costs each fork and each
    exit as much, so a lane drops it once, with drop."""
    cold = []
    try:
        files = [(start, end) for start, end, fields in _mappings() if fields[1] in ("r-xp", "r--p") and fields[-1][0] == "/"]
        hot = _needed(files, rehearse)
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            for start, end in files:
                first = min((page for page in hot if start <= page < end), default=None)
                if first is None:
                    continue   # neither copied nor missed
                memory.seek(first)
                byte = memory.read(1)
                memory.seek(first)
                memory.write(byte)
                for page in _present([(start, end)]):
                    if page in hot:
                        continue
                    if cold and sum(cold[-1]) == page:
                        page, length = cold.pop()
                        cold.append((page, length + PAGE))
                    else:
                        cold.append((page, PAGE))
    except OSError:
        pass
    return cold


def drop(ranges):
    for start, length in ranges:
        libc.madvise(start, length, MADV_DONTNEED)


def _needed(files, rehearse):
    """The pages of files that a rehearsal touches. A fork finds out; what it does to its mappings ends with it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            rehearse()
            with open(writer, "w") as pipe:
                pipe.write(" ".join(map(str, _touched(_present(files), rehearse))))
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        needed = {int(page) for page in pipe.read().split()}
    os.waitpid(child, 0)
    return needed


def _present(files):
    """The pages of files that are mapped, and are still the file's (proc_pid_pagemap(5)). The kernel maps sixteen where one is
    touched."""
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
        for start, end in files:
            pagemap.seek(start // PAGE * 8)
            entries = pagemap.read((end - start) // PAGE * 8)
            for i in range(7, len(entries), 8):
                if entries[i] & 0xa0 == 0xa0:
                    yield start + i // 8 * PAGE


def _touched(pages, rehearse):
    """Those of some pages that a rehearsal touches. The kernel says so for each mapping (proc_pid_clear_refs(5), and Referenced
    in proc_pid_smaps(5)), so every second page is made a mapping of its own, by an advice that means nothing here."""
    pages = set(pages)
    for page in pages:
        if page // PAGE % 2:
            libc.madvise(page, PAGE, MADV_DONTDUMP)
    try:
        with open("/proc/self/smaps", "rb", buffering=0) as smaps, open("/proc/self/clear_refs", "wb", buffering=0) as clear:
            clear.write(b"1")
            _flush()
            rehearse()
            text = smaps.readall()
    except OSError:
        return pages   # a kernel without these; what is next to what is needed is better than nothing
    touched = set()
    for record in (b"\n" + text).split(b"\nVmFlags:"):   # the last line of a mapping; then comes the first one of the next
        start = record[record.find(b"\n") + 1:][:17].partition(b"-")[0]
        referenced = record.partition(b"\nReferenced:")[2].partition(b"kB")[0]
        if referenced.strip() not in (b"", b"0"):
            touched.add(int(start, 16))
    return pages & touched


def _flush():
    """Have the processor forget what it knows of the page tables, as a fork does: else it does not look, and marks nothing."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def collapse():
    """Make huge pages of the memory that is full (madvise(2), MADV_COLLAPSE): each is one entry for a fork to copy where 512
    were. A child that writes to one copies a small page of it, as before, and the rest is still handled together (Linux 6.9)."""
    resident = ctypes.create_string_buffer(HUGE // PAGE)
    for start, end, fields in _mappings():
        if fields[1] != "rw-p" or fields[4] != "0":
            continue   # not anonymous
        for block in range(-(-start // HUGE) * HUGE, end - HUGE + 1, HUGE):
            if libc.mincore(block, HUGE, resident) == 0 and sum(resident.raw) > HUGE // PAGE // 2:
                libc.madvise(block, HUGE, MADV_COLLAPSE)
