package wasm

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ABI are the modules from which actors import what they ask their host for.
var ABI = []string{"wasmbus", "wapc"}

// WASI is the module of WASI preview 1, which actors may import.
const WASI = "wasi_snapshot_preview1"

// NotAnActor says why the file does not run as an actor, and what can be done about
// it; "" if nothing stands against it. What a module does when it is loaded is not
// looked at.
func (f File) NotAnActor() string {
	switch f.Kind {
	case Text:
		return "it is the text form of a module: assemble it with wat2wasm"
	case Component:
		return "it is a component, and edged runs core modules: build it for wasm32-unknown-unknown or wasip1, not for wasip2, and leave out the step that makes a component; hosts of wasmCloud 1.x run it as it is"
	case Unknown:
		return "it is not a WebAssembly module"
	}
	for _, i := range f.Imports {
		if i.Name == "__host_call" && strings.Count(i.Type, "i32") == 5 && strings.HasSuffix(i.Type, "(i32)") {
			return "it calls its host with four parameters, as waSCC modules of 2019 and 2020 do: build it again with a waPC or wasmCloud library"
		}
	}
	if missing := f.missing(); len(missing) > 0 {
		more := ""
		if n := len(missing) - maxNamed; n > 0 {
			missing, more = missing[:maxNamed], fmt.Sprintf(" and %d more", n)
		}
		return "it imports " + strings.Join(missing, ", ") + more + ", which no host of actors has"
	}
	for _, i := range f.Imports {
		if want := abi[i.Name].shape; i.Module != WASI && i.Type != "" && want != i.Type {
			return "it imports " + i.Title() + " as " + i.Type + ", and hosts have it as " + want
		}
	}
	var call, memory, command bool
	for _, e := range f.Exports {
		if e.Name == "__guest_call" && e.Kind == "function" {
			if want := "(i32, i32) → (i32)"; e.Type != "" && e.Type != want {
				return "its __guest_call is " + e.Type + ", and has to be " + want
			}
			call = true
		}
		memory = memory || e.Name == "memory" && e.Kind == "memory"
		command = command || e.Name == "_start"
	}
	switch {
	case f.More > 0 && f.Fault == "":
		return "" // it may be among what is not listed
	case !call && f.Fault != "":
		return "it is damaged: " + f.Fault
	case !call && command:
		return "it is a WASI command, which runs once and is not called: an actor in Go is built with -buildmode=c-shared, others export __guest_call"
	case !call:
		return "it has no export __guest_call, by which actors are called"
	case !memory:
		return "it exports no memory"
	case f.Fault != "":
		return "it is damaged: " + f.Fault
	}
	return ""
}

// maxNamed is how many imports are named that no host has.
const maxNamed = 8

// missing are the imports that no host of actors has.
func (f File) missing() (titles []string) {
	for _, i := range f.Imports {
		if i.Means() == "" {
			titles = append(titles, i.Title())
		}
	}
	return titles
}

// abi is what the functions of the ABI are for, and their types.
var abi = map[string]struct{ means, shape string }{
	"__guest_request":     {"takes the request", "(i32, i32) → ()"},
	"__guest_response":    {"answers it", "(i32, i32) → ()"},
	"__guest_error":       {"answers with an error", "(i32, i32) → ()"},
	"__host_call":         {"calls capabilities and other actors", "(i32, i32, i32, i32, i32, i32, i32, i32) → (i32)"},
	"__host_response":     {"takes the answer of such a call", "(i32) → ()"},
	"__host_response_len": {"takes the answer of such a call", "() → (i32)"},
	"__host_error":        {"takes the error of such a call", "(i32) → ()"},
	"__host_error_len":    {"takes the error of such a call", "() → (i32)"},
	"__console_log":       {"writes to the log", "(i32, i32) → ()"},
}

// Title is the name of an import, fit for a terminal.
func (i Import) Title() string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return utf8.RuneError
		}
		return r
	}, i.Module+"."+i.Name)
}

// Means says in a few words what an actor wants with an import, "" for one that no
// host of actors has.
func (i Import) Means() string {
	if i.Kind != "function" {
		return ""
	}
	switch {
	case i.Module == WASI:
		return wasi(i.Name)
	case i.Module == ABI[0] || i.Module == ABI[1]:
		return abi[i.Name].means
	}
	return ""
}

// wasi says what is behind a function of WASI for an actor, to which no file, socket
// or variable is given.
func wasi(name string) string {
	switch name {
	case "fd_write":
		return "writes to the log"
	case "clock_res_get", "clock_time_get":
		return "reads the clock"
	case "random_get":
		return "asks for random bytes"
	case "proc_exit", "proc_raise", "sched_yield", "poll_oneoff":
		return "ends, or waits"
	case "args_get", "args_sizes_get", "environ_get", "environ_sizes_get":
		return "reads arguments or variables, of which there are none"
	case "fd_advise", "fd_allocate", "fd_close", "fd_datasync", "fd_fdstat_get", "fd_fdstat_set_flags", "fd_fdstat_set_rights",
		"fd_filestat_get", "fd_filestat_set_size", "fd_filestat_set_times", "fd_pread", "fd_prestat_dir_name", "fd_prestat_get",
		"fd_pwrite", "fd_read", "fd_readdir", "fd_renumber", "fd_seek", "fd_sync", "fd_tell",
		"path_create_directory", "path_filestat_get", "path_filestat_set_times", "path_link", "path_open", "path_readlink",
		"path_remove_directory", "path_rename", "path_symlink", "path_unlink_file",
		"sock_accept", "sock_recv", "sock_send", "sock_shutdown":
		return "reads or writes files, of which there are none"
	}
	return ""
}
