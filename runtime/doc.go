// Package runtime runs actors: WebAssembly modules with the waPC guest ABI, as
// wasmCloud's classic hosts ran them.
//
// A [Host] loads modules. What it loads becomes an [Actor], which has an
// identity and limits and can be called: an operation and a payload go in, a
// payload or an error comes out. What the actor asks of the outside (messages,
// state, hardware) goes to the one [HostCall] function that the host was made
// with, under the context of the call that the actor is serving; this is how a
// turn travels through an actor.
//
// An actor is served by instances of its module: made when they are needed, up
// to a limit, kept warm, used by one call at a time. An instance that trapped,
// met a limit, or has grown close to its memory limit is not used again. No
// state between calls is promised to a guest.
//
// Modules are rewritten when they are loaded, so that they count their steps and
// can be stopped, and made to wait, wherever they are (runtime/meter). DESIGN.md
// next to this file has the life of a call and what is bounded by what.
//
// Modules come here already verified: who may run what is decided elsewhere.
package runtime
