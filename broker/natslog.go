package broker

import (
	"fmt"
	"log/slog"
	"regexp"
	"sync"
)

// maxWarned bounds how many different complaints are remembered.
const maxWarned = 64

// serverLog is the log of the embedded server. Its everyday story is debug to
// us. A complaint is a warning once, and debug when it repeats, until forget:
// a hub that is away for weeks must not fill the flash.
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

func (l *serverLog) complain(format string, v []any) {
	text := fmt.Sprintf(format, v...)
	key := counters.ReplaceAllString(text, "#")
	l.mu.Lock()
	again := l.warned[key]
	if !again && len(l.warned) < maxWarned {
		l.warned[key] = true
	}
	l.mu.Unlock()
	if again {
		l.log.Debug("nats server", "text", text)
		return
	}
	l.log.Warn("nats server", "text", text)
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
