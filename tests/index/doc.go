// Package index is a package index on loopback for tests: it builds wheels and source distributions, honest and forged, and
// serves them as PEP 503, 691, 658 and 592 say, or fails to in the ways that real indexes do.
package index
