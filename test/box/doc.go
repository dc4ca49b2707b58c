// Package box has the tests of one box as a process: what it does with bad
// input, with a disk that is full or damaged, and without a network. Messages
// that were acknowledged before are looked for after each of them.
//
// Root gets a file system and a network of its own for the box. Without it, a
// limit stands for the full disk, and addresses that nobody has for the network
// that is not there.
package box
