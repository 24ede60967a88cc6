"""Makes a process repeat a system call with other arguments (ptrace(2)). The process is traced for that call only."""
import ctypes
import errno
import struct

_library = ctypes.PyDLL(None)   # does not release the GIL: a program waits for each of these calls
_ptrace, _wait = _library["ptrace"], _library["wait4"]
_ptrace.restype = ctypes.c_long

PTRACE_DETACH, PTRACE_SYSCALL, PTRACE_GETREGSET, PTRACE_SETREGSET, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 24, 0x4204, 0x4205, 0x4206, 0x4207
TRACESYSGOOD, NT_PRSTATUS, SYSCALL_STOP, EVENT_STOP, WALL = 1, 1, 0x85, 128, 0x40000000
NOT_ASKED = 0x70617468   # as sixth argument, which no call with a path uses: the filter lets the call pass

# Of struct user_regs_struct (x86-64) and struct user_pt_regs (arm64): the number of registers; which of them hold the arguments, the
# result, the call's number, the stack pointer and the program counter; and the length of the call's instruction in bytes.
_REGISTERS = {
    "x86_64": (27, (14, 13, 12, 7, 9, 8), 10, 10, 19, 16, 2),
    "aarch64": (34, (0, 1, 2, 3, 4, 5), 0, 8, 31, 32, 4),
}


class Vector(ctypes.Structure):
    """struct iovec"""
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Tracer:
    def __init__(self, machine):
        self.machine = machine
        self.size, self.arguments, self.result, self.number, self.stack, self.next, self.length = _REGISTERS[machine]
        self.layout = struct.Struct(f"{self.size}Q")
        self.registers = ctypes.create_string_buffer(self.size * 8)
        self.vector = Vector(ctypes.addressof(self.registers), len(self.registers))
        self.pending = {}   # by tid: the registers to restore after a repeated call that may take long

    def watch(self, status, usage_at):
        """Set the buffers that waits write to. When a wait meets the end of child, the worker, ended becomes true."""
        self.status, self.status_at, self.usage_at = status, ctypes.byref(status), usage_at
        self.child, self.ended = 0, False

    def seize(self, tid):
        """Have a thread stop once it has the answer that it waits for. False when it may not be traced."""
        if _ptrace(PTRACE_SEIZE, tid, 0, TRACESYSGOOD) < 0:
            return False
        _ptrace(PTRACE_INTERRUPT, tid, 0, 0)
        return True

    def again(self, tid, number, values, changed, write, executes, waits):
        """Have a seized thread repeat its call with other paths, and restore all its registers but the result. changed has the paths by
        argument, and write copies them into its memory. executes says that the call is an execve; waits, that it may take long, so that
        stopped handles its end."""
        if self._wait_for(tid) >> 16 != EVENT_STOP:
            return
        before = self._read_registers(tid)
        if before is None:
            return
        before[self.next] -= self.length
        for register, value in zip(self.arguments, values):
            before[register] = value
        before[self.number] = number
        after = before.copy()
        place = before[self.stack] - 256   # below the red zone, which a function may use beyond its stack pointer
        for argument, path in changed.items():
            place = place - len(path) - 1 & -16
            after[self.arguments[argument]] = place
            if not write(place, path + b"\0"):
                before[self.next] += self.length
                before[self.result] = -errno.EFAULT & (1 << 64) - 1
                return self._leave(tid, before)
        after[self.arguments[5]] = NOT_ASKED
        self._set(tid, after)
        _ptrace(PTRACE_SYSCALL, tid, 0, 0)
        status = self._wait_for(tid)
        if status >> 8 != SYSCALL_STOP:
            if status & 0xff == 0x7f:   # a signal came first: its handler runs, and then the call is repeated and asked about anew
                self._leave(tid, before, status)
            return
        _ptrace(PTRACE_SYSCALL, tid, 0, 0)
        if waits:
            self.pending[tid] = before
        else:
            self._made(tid, before, self._wait_for(tid), executes)

    def _made(self, tid, before, status, executes=False):
        if status & 0xff != 0x7f:
            return
        now = self._read_registers(tid)
        if now is None:
            return
        if executes and now[self.result] == 0:
            return self._leave(tid, None)   # the registers are the new program's
        before[self.next] = now[self.next]
        before[self.result] = now[self.result]
        if self.machine == "x86_64":
            before[15] = now[15]   # orig_rax, which the kernel needs to restart a call that a signal has interrupted
        self._leave(tid, before)

    def stopped(self, tid, status):
        """Handle a stop that the lane's main loop has met: the end of a call in pending, or else a thread to let go."""
        before = self.pending.pop(tid, None)
        if before is None:
            _ptrace(PTRACE_DETACH, tid, 0, 0)
        else:
            self._made(tid, before, status)

    def _leave(self, tid, registers, status=0):
        if registers is not None:
            self._set(tid, registers)
        signal = status >> 8 & 0x7f if status >> 16 == 0 and status >> 8 != SYSCALL_STOP else 0
        _ptrace(PTRACE_DETACH, tid, 0, signal)

    def _read_registers(self, tid):
        self.vector.length = len(self.registers)
        if _ptrace(PTRACE_GETREGSET, tid, NT_PRSTATUS, ctypes.byref(self.vector)) < 0:
            return None
        return list(self.layout.unpack(self.registers))

    def _set(self, tid, registers):
        self.layout.pack_into(self.registers, 0, *registers)
        self.vector.length = len(self.registers)
        _ptrace(PTRACE_SETREGSET, tid, NT_PRSTATUS, ctypes.byref(self.vector))

    def _wait_for(self, tid):
        """Return the wait status of a traced thread, which stops or ends at once; 0 when it is gone already."""
        if _wait(tid, self.status_at, WALL, self.usage_at) != tid:
            return 0
        status = self.status.value
        if status & 0xff != 0x7f and tid == self.child:
            self.ended = True
        return status
