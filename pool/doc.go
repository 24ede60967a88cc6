// Package pool keeps warm, confined CPython processes and runs code in them, each process once.
//
// # Processes
//
//	caddy (Go)
//	 ├─ installer  runs pip, or compiles; confined as a worker, one task, then gone
//	 └─ template   imports once, runs no user code; one or more per pool and set of packages
//	     └─ lane   first process of a pid namespace; forks one worker at a time, reaps what it leaves
//	         └─ worker   confined, parked until a request comes; one request, then gone
//
// A lane exists because the first process of a pid namespace ignores signals that it has no handler for, so user code
// cannot be that process; and because it outlives its workers, whatever confines them is paid for once: namespaces, mounts,
// ids, limits and capabilities are the lane's, and a worker inherits them. Between two workers nothing but the lane is alive
// in it, its scratch is emptied, and a lane that finds more left behind than that ends, so that the kernel clears up.
//
// A request that has Request.Input is a session: its worker is leased for as long as input comes.
//
// # Protocol
//
// Control sockets are SOCK_SEQPACKET pairs: a word or a few in each packet, descriptors beside it. A process that cannot go
// on says {"event":"failed","step","error"} instead and ends.
//
//	Go -> template  {"sources", "main", "plan"}  first packet, read by python/bootstrap.py; so for installers
//	template -> Go  map                        write my id map (started as root)
//	Go -> template  mapped
//	template -> Go  ready
//	Go -> template  lane N + [control]         fork a lane; N also picks its id
//	template -> Go  lane N + [pidfd]
//	Go -> template  sweep                      without namespaces: a lane is gone, end what it may have left
//
//	lane -> Go      ready
//	Go -> lane      boot [RLIMIT_NPROC] + [stdin, stdout, stderr, channel]
//	Go -> lane      work ...                   the same for a request that waits: the worker is not parked
//	lane -> Go      exit                       of its worker, and then in binary what wait4(2) says: the status, an int, and
//	                                           struct rusage; what the worker left is cleared up after that
//	lane -> Go      leave                      it was too much: the lane ends
//
//	installer -> Go listening + [socket]       of its own network: Caddy accepts there, as its proxy
//	installer -> Go ready                      what came of its task it writes to standard output, as JSON
//
// The channel of a worker is a stream. The source crosses as it is, not as JSON: parsing that would make the worker touch
// dozens of pages that it shares with its lane, and each costs a copy.
//
//	worker -> Go    ready, a line feed              confined; the kernel adds the sender's pid (SO_PASSCRED, unix(7))
//	Go -> worker    run [alone], a line feed, the source, end of file; alone where processors are free | end of file: retire
//
// The worker closes its channel before the first byte of user code runs. What the code did is told by the pipes and by
// the lane's wait4, so there is nothing for user code to forge. End of file on a control socket or channel means that
// the other side is gone: every process below Caddy then ends.
package pool
