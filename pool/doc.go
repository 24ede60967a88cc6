// Package pool keeps warm, confined CPython processes and runs code in them, each process once.
//
// # Processes
//
//	caddy (Go)
//	 └─ template   imports once, runs no user code; one or more per pool
//	     └─ lane   first process of a pid namespace; forks one worker at a time, reaps what it leaves
//	         └─ worker   confined, parked until a request comes; one request, then gone
//
// A lane exists because the first process of a pid namespace ignores signals that it has no handler for, so user code
// cannot be that process; and because it outlives its workers, the pid and network namespaces and /proc are paid for
// once per lane. Between two workers nothing but the lane is alive in it.
//
// # Protocol
//
// Control sockets are SOCK_SEQPACKET pairs that carry one JSON message per packet, descriptors beside it.
//
//	Go -> template  {"sources", "plan"}                  first message, read by python/bootstrap.py
//	template -> Go  {"event":"map"}                      write my id map (started as root)
//	Go -> template  {"op":"mapped"}
//	template -> Go  {"event":"ready"} | {"event":"failed","step","error"}
//	Go -> template  {"op":"lane","id"} + [control]       fork a lane
//	template -> Go  {"event":"lane","id"} + [pidfd]
//
//	lane -> Go      {"event":"ready"} | {"event":"failed","step","error"}
//	Go -> lane      boot N + [stdin, stdout, stderr, channel]     plain words; N numbers the lane's workers
//	Go -> lane      kill N
//	lane -> Go      {"event":"exit","worker","status","cpu_seconds","max_rss_bytes"}
//
// The channel of a worker is a stream. It carries one JSON line, then the source as it is: parsing it as JSON would make
// the worker touch dozens of pages that it shares with its lane, and each costs a copy.
//
//	worker -> Go    {"event":"ready"} | {"event":"failed","step","error"}, and a line feed
//	Go -> worker    run, a line feed, the source, end of file | end of file: retire
//
// The worker closes its channel before the first byte of user code runs. What the code did is told by the pipes and by
// the lane's wait4, so there is nothing for user code to forge. End of file on a control socket or channel means that
// the other side is gone: every process below Caddy then ends.
package pool
