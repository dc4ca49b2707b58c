// Package box has the tests of one box as a process: what it does with bad
// input, with a disk that is full or damaged, and without a network. Messages
// that were acknowledged before are looked for after each of them.
//
// Some need root, for a file system or a network of their own; elsewhere they
// are skipped, and say so.
package box
