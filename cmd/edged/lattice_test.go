package main

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// A hub that does not let its user command boxes is told apart from boxes that are away, at once.
func TestVerbs_forbidden(t *testing.T) {
	may := func(subjects ...string) *server.SubjectPermission { return &server.SubjectPermission{Allow: subjects} }
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true, Users: []*server.User{
		{Username: "reader", Password: "x", Permissions: &server.Permissions{Publish: may("other"), Subscribe: may("_INBOX.>")}},
		{Username: "operator", Password: "x", Permissions: &server.Permissions{Publish: may("wasmbus.ctl.>"), Subscribe: may("_INBOX.>", "wasmbus.evt.>")}},
		{Username: "deaf", Password: "x", Permissions: &server.Permissions{Publish: may("wasmbus.ctl.>"), Subscribe: may("_INBOX.>")}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	defer s.WaitForShutdown()
	defer s.Shutdown()
	if !s.ReadyForConnections(patience) {
		t.Fatal("the server is not ready")
	}
	port := strings.TrimPrefix(s.ClientURL(), "nats://")
	for _, c := range []struct {
		user, verb, want string
		code             int
	}{
		{"reader", "link ls", "Permissions Violation for Publish", exitFailed},
		{"reader", "host ls --wait 1m", "Permissions Violation for Publish", exitFailed},
		{"deaf", "events", "Permissions Violation for Subscription", exitFailed},
		{"operator", "link ls", "nobody answers", exitUnreachable},
		{"operator", "host ls", "nobody answers in the lattice default", exitUnreachable},
		{"operator", "label ls --device press-7 --lattice shop", "nobody answers in the lattice shop", exitUnreachable},
		{"operator", "host ls --lattice a.b", "a name has letters", exitUsage},
		{"stranger", "host ls", "Authorization Violation", exitUnreachable},
	} {
		var out, errOut bytes.Buffer
		args := append(strings.Fields(c.verb), "--server", fmt.Sprintf("nats://%s:x@%s", c.user, port))
		begin := time.Now()
		code := run(args, nil, &out, &errOut)
		if code != c.code || !strings.Contains(errOut.String(), c.want) {
			t.Errorf("%s: edged %s: got %d, %s, want %d, %s", c.user, c.verb, code, errOut.String(), c.code, c.want)
		}
		if strings.Contains(errOut.String(), ":x@") {
			t.Errorf("%s: edged %s shows the password: %s", c.user, c.verb, errOut.String())
		}
		if took := time.Since(begin); took > patience/2 {
			t.Errorf("%s: edged %s took %v", c.user, c.verb, took)
		}
	}
}

func TestSummary(t *testing.T) {
	for data, want := range map[string]string{
		`{"host_id":"N","public_key":"M1","max_instances":1000000,"claims":{"a":1},"annotations":{},"error":"no such file"}`: `error="no such file" max_instances=1000000 public_key=M1`,
		`{"labels":{"a":"b"},"actors":[1,2],"gone":null,"ok":true}`:                                                          `actors=2 labels={"a":"b"} ok=true`,
		`[1]`: `[1]`,
		``:    ``,
	} {
		if got := summary([]byte(data)); got != want {
			t.Errorf("%s: got %s, want %s", data, got, want)
		}
	}
}

func TestPick(t *testing.T) {
	type thing struct{ key, name, ref string }
	of := func(x thing) (string, string, string) { return x.key, x.name, x.ref }
	all := []thing{{"M1", "pump", "r/pump:1"}, {"M1", "pump", "r/pump:1"}, {"M2", "fan", "r/fan:1"}, {"M3", "fan", "r/fan:2"}, {"M4", "M2", ""}}
	for wanted, want := range map[string]string{
		"M1": "M1", "pump": "M1", "r/pump:1": "M1", "M2": "M2", "r/fan:2": "M3",
		"fan": `actor "fan" is one of several: M2 M3`, "none": `no such actor: "none"; there are: M2, fan, pump`,
	} {
		got, err := pick("actor", wanted, all, of)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", wanted, got, want)
		}
	}
	if _, err := pick("actor", "x", nil, of); err == nil || err.Error() != "no actor runs there" {
		t.Errorf("got %v", err)
	}
}
