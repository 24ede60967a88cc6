// Package packages keeps sets of Python packages on disk, and fetches wheels from an index. It starts no process and
// decides nothing about which package is welcome.
//
// A wheel is checked and unpacked once, into an entry of the store whose name has the wheel's hash. A generation is an
// immutable directory with one set of packages, made of hard links into the store: the next generation costs little disk
// space, and the last one stays whole while processes still read it. One generation is current.
package packages
