// Package actors has the tests of actors that others made: guests written against the ABI alone, in several languages
// and in the styles of the kits that classic wasmCloud had, each run in a box that trusts nobody but their signer.
//
// The guests in wat are in the text form of WebAssembly and always run. Those in C, Rust, AssemblyScript and with the
// library of the TinyGo kit need compilers, which `make foreign` installs; it builds them and runs all tests.
package actors
