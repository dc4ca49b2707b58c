package broker

import (
	"fmt"
	"log/slog"
	"regexp"
	"sync"
)

// Bounds on complaints: how many different ones are warnings, and how many bytes of one
// there are. What clients ask for, and call themselves, is in them.
const (
	maxWarned    = 64
	maxComplaint = 1 << 10
)

// serverLog is the log of the embedded server. Its everyday story is debug to
// us. A complaint is a warning once, and debug when it repeats, until forget:
// a hub that is away for weeks must not fill the flash, nor must a client that
// tries one subject after the other.
type serverLog struct {
	log *slog.Logger

	mu     sync.Mutex // guards the fields below
	warned map[string]bool
	died   error
}

func newServerLog(log *slog.Logger) *serverLog {
	return &serverLog{log: log, warned: make(map[string]bool)}
}

const plaintextWarning = "Plaintext passwords detected, use nkeys or bcrypt"

// counters are parts of a complaint that differ each time it is made.
var counters = regexp.MustCompile(`[0-9]+`)

// violation is what a client did that it may not do, whatever the subject was.
var violation = regexp.MustCompile(`^.* Violation - `)

func (l *serverLog) complain(format string, v []any) {
	text := fmt.Sprintf(format, v...)
	text = text[:min(len(text), maxComplaint)]
	key := text
	if v := violation.FindString(text); v != "" {
		key = v
	}
	key = counters.ReplaceAllString(key, "#")
	l.mu.Lock()
	quiet := l.warned[key] || len(l.warned) >= maxWarned
	last := !quiet && len(l.warned) == maxWarned-1
	if !quiet {
		l.warned[key] = true
	}
	l.mu.Unlock()
	if quiet {
		l.log.Debug("nats server", "text", text)
		return
	}
	l.log.Warn("nats server", "text", text)
	if last {
		l.log.Warn("nats server complains of more than is shown: debug has the rest")
	}
}

// forget lets complaints be heard again.
func (l *serverLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	clear(l.warned)
}

// fatal returns why the server could not go on, or nil.
func (l *serverLog) fatal() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.died
}

func (l *serverLog) Noticef(format string, v ...any) {
	l.log.Debug("nats server", "text", fmt.Sprintf(format, v...))
}
func (l *serverLog) Warnf(format string, v ...any) {
	if format == plaintextWarning {
		return // the passwords are random and live as long as the process
	}
	l.complain(format, v)
}
func (l *serverLog) Errorf(format string, v ...any) { l.complain(format, v) }

// Fatalf notes what ends the server; start returns it.
func (l *serverLog) Fatalf(format string, v ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.died == nil {
		l.died = fmt.Errorf(format, v...)
	}
}

func (l *serverLog) Debugf(string, ...any) {} // switched off at the server
func (l *serverLog) Tracef(string, ...any) {}
