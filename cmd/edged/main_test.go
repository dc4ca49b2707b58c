package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/oci"
	"github.com/edged-io/edged/internal/oci/ocitest"
)

// The test binary is the command: scripts in testdata run it as edged.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"edged": main, "echo-provider": echoProvider})
}

var update = flag.Bool("update", false, "rewrite what scripts compare with")

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Getuid() == 0, nil
			case "mounts": // a file system can be mounted without anybody noticing
				return exec.Command("unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt").Run() == nil, nil
			}
			return false, fmt.Errorf("unknown condition %s", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"code":  scriptCode,
			"mode":  scriptMode,
			"ready": scriptReady,
			"hup":   scriptHup,
			"term":  func(ts *testscript.TestScript, _ bool, _ []string) { signalAll(ts, syscall.SIGTERM) },
			"json":  scriptJSON,
			// problems N waits until the box has so many.
			"problems": scriptProblems,
			"actor": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), quiet, 0o600))
			},
			"failingactor": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), failing, 0o600))
			},
			"component": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte("\x00asm\x0d\x00\x01\x00"), 0o600))
			},
			// senseless makes a module whose code makes no sense.
			"senseless": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), bytes.Replace(quiet, []byte("\x41\x01\x0b"), []byte("\x41\xff\x0b"), 1), 0o600))
			},
			"tamper": scriptTamper,
			// registry FILE puts a file into a registry, as $REGISTRY/acme/FILE:1.
			"registry": func(ts *testscript.TestScript, _ bool, args []string) {
				r := ocitest.New(t)
				r.Push("acme/"+args[0]+":1", ocitest.Layer{Type: oci.ActorLayer, Data: []byte(ts.ReadFile(args[0]))})
				ts.Setenv("REGISTRY", r.Host)
			},
			// archive SEED FILE makes a provider archive, signed by the account of a seed.
			"archive": func(ts *testscript.TestScript, _ bool, args []string) {
				seed, err := claims.ParseSeed(strings.TrimSpace(ts.ReadFile(args[0])))
				ts.Check(err)
				provider, err := claims.Generate(claims.Service)
				ts.Check(err)
				f, err := os.Create(ts.MkAbs(args[1]))
				ts.Check(err)
				c := claims.Claims[claims.ProviderClaims]{Subject: provider.Key().String()}
				c.Wascap = claims.ProviderClaims{Name: "modbus", Contract: "acme:modbus", Vendor: "Acme", Ver: "1.0", Rev: 3}
				ts.Check(claims.WriteArchive(f, c, map[string]string{"x86_64-linux": ts.MkAbs(args[0])}, seed))
				ts.Check(f.Close())
			},
			"programarchive": scriptArchive,
			"publish":        scriptPublish,
			"dead":           scriptDead,
			"heard":          scriptHeard,
		},
	})
}

// scriptCode runs a command and compares its exit code: code 3 edged status.
func scriptCode(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit code %d, want %s", got, args[0])
	}
}

// scriptMode compares the mode of a file: mode 600 key.
func scriptMode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// scriptTamper copies a file with one byte changed, that of its code: tamper FROM TO.
func scriptTamper(ts *testscript.TestScript, _ bool, args []string) {
	b := []byte(ts.ReadFile(args[0]))
	at := bytes.Index(b, []byte("\x41\x01\x0b")) // i32.const 1, end
	if at < 0 {
		ts.Fatalf("%s has not the code of an actor", args[0])
	}
	b[at+1] = 0
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o600))
}

// patience is how long a script waits for what must happen. Beside other work a module takes a minute to compile.
const patience = 3 * time.Minute

func await(ts *testscript.TestScript, what string, ok func() bool) {
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			ts.Fatalf("in vain: %s", what)
		}
		runtime.Gosched()
		<-time.After(10 * time.Millisecond)
	}
}

// boxStatus asks the box that runs in the background, nil while it does not answer.
func boxStatus(ts *testscript.TestScript) map[string]any {
	var out, errOut bytes.Buffer
	if run([]string{"status", "--json", "--config", ts.MkAbs("edged.toml")}, nil, &out, &errOut) != exitOK {
		return nil
	}
	var s map[string]any
	ts.Check(json.Unmarshal(out.Bytes(), &s))
	return s
}

func scriptProblems(ts *testscript.TestScript, _ bool, args []string) {
	var status struct{ Problems []string }
	for deadline := time.Now().Add(patience); ; {
		ts.Check(ts.Exec("edged", "status", "--config", "edged.toml", "--json"))
		ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &status))
		if strconv.Itoa(len(status.Problems)) == args[0] {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("problems %q, want %s", status.Problems, args[0])
		}
		<-time.After(20 * time.Millisecond)
	}
}

// scriptReady waits until the box in the background serves, and nothing has to be
// compiled any more.
func scriptReady(ts *testscript.TestScript, _ bool, _ []string) {
	await(ts, "the box answers", func() bool {
		s := boxStatus(ts)
		if s == nil {
			return false
		}
		apps, _ := s["apps"].([]any)
		return !slices.ContainsFunc(apps, func(a any) bool {
			keys, _ := a.(map[string]any)["compiling"].([]any)
			return len(keys) > 0
		})
	})
}

// signalAll sends a signal to what runs in the background.
func signalAll(ts *testscript.TestScript, s os.Signal) {
	for _, c := range ts.BackgroundCmds() {
		ts.Check(c.Process.Signal(s))
	}
}

// scriptHup sends SIGHUP to the box in the background, waits until it has
// reloaded, and compares how that ended with a part of the error.
func scriptHup(ts *testscript.TestScript, _ bool, args []string) {
	count := func() (n float64, text string) {
		if r, ok := boxStatus(ts)["reload"].(map[string]any); ok {
			return r["count"].(float64), r["error"].(string)
		}
		return 0, ""
	}
	before, _ := count()
	signalAll(ts, syscall.SIGHUP)
	var text string
	await(ts, "the box reloads", func() bool {
		n, why := count()
		text = why
		return n > before
	})
	want := strings.Join(args, " ")
	if want == "" && text != "" || !strings.Contains(text, want) {
		ts.Fatalf("the reload ended with %q, want %q", text, want)
	}
}

// scriptJSON checks that standard output is one JSON document, and what it has
// under keys: json items, or json streams.0.name greenhouse.
func scriptJSON(ts *testscript.TestScript, neg bool, args []string) {
	d := json.NewDecoder(strings.NewReader(ts.ReadFile("stdout")))
	var v any
	ts.Check(d.Decode(&v))
	if d.More() {
		ts.Fatalf("more than one document")
	}
	for _, key := range strings.Split(args[0], ".") {
		switch in := v.(type) {
		case map[string]any:
			next, ok := in[key]
			if !ok {
				ts.Fatalf("no key %s", args[0])
			}
			v = next
		case []any:
			var i int
			if _, err := fmt.Sscan(key, &i); err != nil || i >= len(in) {
				ts.Fatalf("no element %s of %d", args[0], len(in))
			}
			v = in[i]
		default:
			ts.Fatalf("no key %s", args[0])
		}
	}
	if len(args) == 1 {
		return
	}
	got, err := json.Marshal(v)
	ts.Check(err)
	if want := strings.Join(args[1:], " "); (string(got) == want || fmt.Sprint(v) == want) == neg {
		ts.Fatalf("%s is %s, want %s", args[0], got, want)
	}
}

// scriptPublish publishes to the box, which has to store it: publish SUBJECT TEXT…
func scriptPublish(ts *testscript.TestScript, neg bool, args []string) {
	var at struct{ NATS string }
	await(ts, "the box says where it is", func() bool { _, err := os.Stat(ts.MkAbs("state/addresses.json")); return err == nil })
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("state/addresses.json")), &at))
	nc, err := nats.Connect("nats://"+at.NATS, nats.Timeout(patience))
	ts.Check(err)
	defer nc.Close()
	for _, text := range args[1:] {
		reply, err := nc.Request(args[0], []byte(text), patience)
		if stored := err == nil && !strings.Contains(string(reply.Data), `"error"`); stored == neg {
			ts.Fatalf("publish %s: %v, %+v", args[0], err, reply)
		}
	}
}

// scriptDead waits until there are so many dead letters: dead N.
func scriptDead(ts *testscript.TestScript, _ bool, args []string) {
	await(ts, args[0]+" dead letters", func() bool { return fmt.Sprint(boxStatus(ts)["dead_letters"]) == args[0] })
}

// scriptHeard puts a configuration, heard, again and again until what runs in the background beside the box has ended: it waits for an event.
func scriptHeard(ts *testscript.TestScript, _ bool, _ []string) {
	all := ts.BackgroundCmds()
	listener := all[len(all)-1]
	n := 0
	await(ts, "somebody hears the event", func() bool {
		n++
		var out, errOut bytes.Buffer
		if code := run([]string{"config", "put", "heard", fmt.Sprint("n=", n), "--config", ts.MkAbs("edged.toml")}, nil, &out, &errOut); code != exitOK {
			ts.Fatalf("config put: %d %s", code, errOut.String())
		}
		return listener.Process.Signal(syscall.Signal(0)) != nil
	})
}

// quiet is the smallest actor: it answers every call, with nothing.
var quiet = slices.Concat(wasmHead, []byte("\x0a\x06\x01\x04\x00\x41\x01\x0b")) // its function returns 1

// failing is one that answers Actor.HealthRequest, and fails everything else: its
// function compares the length of the operation with 19.
var failing = slices.Concat(wasmHead, []byte("\x0a\x09\x01\x07\x00\x20\x00\x41\x13\x46\x0b"))

var wasmHead = slices.Concat(
	[]byte("\x00asm\x01\x00\x00\x00"),
	[]byte("\x01\x07\x01\x60\x02\x7f\x7f\x01\x7f"), // one type: (i32, i32) → (i32)
	[]byte("\x03\x02\x01\x00"),                     // one function of it
	[]byte("\x05\x03\x01\x00\x01"),                 // one page of memory
	[]byte("\x07\x19\x02\x0c__guest_call\x00\x00\x06memory\x02\x00"),
)
