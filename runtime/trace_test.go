package runtime

import (
	"strings"
	"testing"
)

func TestHeadline(t *testing.T) {
	for said, want := range map[string]string{
		"": "",
		"starting\npanic: runtime error: index out of range [3] with length 3\n\ngoroutine 1 [running]:\nmain.handle(...)\n": "panic: runtime error: index out of range [3] with length 3",
		"fatal error: all goroutines are asleep - deadlock!\n\ngoroutine 1":                                                  "fatal error: all goroutines are asleep - deadlock!",
		"panicked at 'no paper', src/lib.rs:4:5\n":                                                                           "panicked at 'no paper', src/lib.rs:4:5",
		"note\nthread '<unnamed>' panicked at src/lib.rs:4:5:\nno   paper\nnote: run with":                                   "thread '<unnamed>' panicked at src/lib.rs:4:5: no paper",
		"one\nthe last\n":         "the last",
		strings.Repeat("x", 1000): strings.Repeat("x", maxHeadline) + "…",
	} {
		if got := headline(said); got != want {
			t.Errorf("%q: got %q, want %q", said, got, want)
		}
	}
}

// A report that is too long to keep begins with its reason: Go out of memory tells
// of all its goroutines.
func TestLineWriter_longReport(t *testing.T) {
	w := lineWriter{in: &instance{}}
	w.write([]byte("fatal error: out of memory\n"))
	for range 3 {
		w.write([]byte(strings.Repeat("runtime.gopark(0x36cf8) ", 80) + "\n"))
	}
	if got := headline(string(w.said())); got != "fatal error: out of memory" {
		t.Errorf("got %q", got)
	}
	w = lineWriter{in: &instance{}}
	w.keep([]byte(strings.Repeat("x\n", maxOutputBytes) + "the last\n"))
	if got := headline(string(w.said())); got != "the last" {
		t.Errorf("got %q", got)
	}
}

func TestTrapError_Trace(t *testing.T) {
	for _, c := range []struct{ name, output, stack, want string }{
		{"C", "", "open_the_box(i32)\n__guest_call(i32,i32) i32", "in open_the_box\n__guest_call"},
		{
			"Rust", "panicked at 'x', a.rs:1:1\n",
			"__rust_start_panic(i32) i32\nrust_panic(i32,i32)\n_ZN3std9panicking20rust_panic_with_hook17h1b1329eaa36c7fa5E(i32)\nrust_begin_unwind(i32)\n" +
				"_ZN4core9panicking18panic_bounds_check17h85ba5634c84ff856E(i32,i32,i32)\n_ZN5actor12open_the_box17h2bd6e2e2db40fef7E(i32)\n__guest_call(i32,i32) i32",
			"in actor::open_the_box\n__guest_call\n(and 5 functions of its language, which ended it)",
		},
		{
			"TinyGo", "", "runtime.runtimePanicAt(i32) i32\nruntime.nilPanic(i32) i32\nmain.(*Box).open(i32) i32\nmain.handle(i32) i32\ngithub.com/x/sdk.dispatch(i32) i32\nruntime.goexit(i32) i32\nwasm_pc_f_loop(i32)",
			"in main.(*Box).open\nmain.handle\ngithub.com/x/sdk.dispatch\n(and 2 functions of its language, which ended it)",
		},
		{
			"Go", "note\npanic: no\n\ngoroutine 1 [running]:\nmain.f()\n\tmain.go:3 +0x2\n", "runtime.fatalpanic(i32) i32\nmain.f(i32) i32",
			"note\ngoroutine 1 [running]:\nmain.f()\n\tmain.go:3 +0x2",
		},
		{"out of time", "", "edged.tick(i32) i32\nspin(i32)\n__guest_call(i32,i32) i32", "in spin\n__guest_call"},
		{"out of time, no names", "", "edged.tick(i32) i32\n$12(i32) i32\n$7(i32)", "in function 12, and 1 that called it; the module has no names of functions"},
		{"one of its language", "", "abort(i32)\nspin(i32)", "in spin\n(and 1 function of its language, which ended it)"},
		{"no names, but words", "panic: no\nmore\n", "$12(i32) i32", "more"},
		{"no names", "", "$12(i32) i32\n$7(i32)\n$3(i32)", "in function 12, and 2 that called it; the module has no names of functions"},
		{"of its language alone", "", "runtime.throw(i32) i32\nruntime.mallocgc(i32)", "in runtime.throw\nruntime.mallocgc"},
		{"nothing", "", "", ""},
	} {
		e := &TrapError{Output: c.output, Stack: c.stack}
		if got := e.Trace(); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
	deep := &TrapError{Output: strings.Repeat("line\n", 1000) + "end", Stack: strings.Repeat("down(i32) i32\n", 1000)}
	if lines := strings.Split(deep.Trace(), "\n"); len(lines) != maxSaidLines+1+maxFrames+1 || lines[len(lines)-1] != "(984 more functions)" {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}
}

func TestDemangle(t *testing.T) {
	for name, want := range map[string]string{
		"_ZN3std9panicking19begin_panic_handler28_$u7b$$u7b$closure$u7d$$u7d$17h106d97be21bfe094E":             "std::panicking::begin_panic_handler::{{closure}}",
		"_ZN71_$LT$core..ops..range..Range$LT$Idx$GT$$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE": "<core::ops::range::Range<Idx> as core::fmt::Debug>::fmt",
		"_ZN": "_ZN", "_ZNE": "_ZNE", "_ZN99xE": "_ZN99xE", "_ZN99999999999999999999xE": "_ZN99999999999999999999xE", "_ZNx": "_ZNx", "main.f": "main.f",
	} {
		if got := demangle(name); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

// What a guest says and how its functions are called is from outside.
func FuzzTrapError_Trace(f *testing.F) {
	f.Add("panic: no\n\ngoroutine 1 [running]:\nmain.f()\n", "main.f(i32) i32\n$12()")
	f.Add("thread panicked at a.rs:1:1:", "_ZN3std9panicking20rust_panic_with_hook17h1b1329eaa36c7fa5E(i32)\n_ZN5_$LT$x17hE()")
	f.Add("\xff\n\n\n", "_ZN99999999999999999999E()\n(())")
	f.Fuzz(func(t *testing.T, output, stack string) {
		e := &TrapError{Output: output, Stack: stack}
		if lines := strings.Count(e.Trace(), "\n"); lines > maxSaidLines+maxFrames+3 {
			t.Errorf("%d lines", lines)
		}
		if text := e.Error(); strings.Contains(text, "\n") || len(text) > maxHeadline+100 {
			t.Errorf("%q is not a line", text)
		}
	})
}
