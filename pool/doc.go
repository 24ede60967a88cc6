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
// cannot be that process. It also saves time: namespaces, mounts, ids, limits and capabilities are set up once for the lane, and
// each of its workers inherits them. Before the next worker is forked, the lane kills every process that the last one left and
// empties the scratch. A lane that cannot do so within its bounds ends, and the kernel removes its namespaces with all that is in
// them.
//
// A request that has Request.Input is a session: its worker is leased for as long as input comes.
//
// # Protocol
//
// Control sockets are SOCK_SEQPACKET pairs. A packet holds a few words, and may carry descriptors (shown after +). A process that cannot go
// on says {"event":"failed","step","error"} instead and ends.
//
//	Go -> template  {"sources", "main", "plan"}  first packet, read by python/bootstrap.py; installers get it too
//	template -> Go  map                        write my id map (started as root)
//	Go -> template  mapped
//	template -> Go  ready
//	Go -> template  lane N + [control]         fork a lane; N also picks its id
//	template -> Go  lane N + [pidfd]
//	template -> Go  failed N why               it could not fork the lane, and goes on
//	Go -> template  sweep                      without namespaces: a lane is gone, kill processes that it may have left
//
//	lane -> Go      ready
//	Go -> lane      boot [RLIMIT_NPROC] + [stdin, stdout, stderr, channel]
//	Go -> lane      work ...                   the same, for a request that waits already: the worker is not parked
//	lane -> Go      exit                       its worker has ended. Binary data follow: wait4(2)'s status, an int, and struct
//	                                           rusage. The lane clears up after that
//	lane -> Go      leave                      it cannot clear up: the lane ends
//
//	installer -> Go listening + [socket]       a listener in its own network, on which Caddy's proxy accepts
//	installer -> Go ready                      the result of its task goes to standard output, as JSON
//
// The channel of a worker is a stream. The source crosses as it is, not as JSON: parsing that would make the worker touch
// dozens of pages that it shares with its lane, and each costs a copy.
//
//	worker -> Go    ready, a line feed              confined; the kernel adds the sender's pid (SO_PASSCRED, unix(7))
//	Go -> worker    run [alone], a line feed, the source, end of file; "alone" when processors
//	                                                are idle. End of file without "run" asks the worker to end
//
// The worker closes its channel before the first byte of user code runs. The result is what the pipes hold and
// what the lane's wait4 returns, so user code can forge none of it. End of file on a control socket or channel means that
// the other side is gone: every process below Caddy then ends.
package pool
