package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// A unit that reloads is told how it ended; the watchdog is content while the
// box is, and no longer.
func TestNotifier(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "30000")
	t.Setenv("WATCHDOG_PID", "")
	next := func() string {
		t.Helper()
		if err := l.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 4096)
		n, err := l.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	s := NewNotifier(slog.New(slog.DiscardHandler))
	s.Reloading()
	contains(t, next(), "RELOADING=1", "MONOTONIC_USEC=")
	s.Reloaded(errors.New("app a: broken\napp b: broken"))
	contains(t, next(), "READY=1", "STATUS=apps not reloaded: app a: broken; app b: broken")
	s.Reloaded(nil)
	contains(t, next(), "READY=1", "STATUS=apps reloaded")
	s.Stopping()
	contains(t, next(), "STOPPING=1")

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := make(chan struct{}, 100)
	answers := make(chan error, 3)
	answers <- nil
	answers <- errors.New("the disk failed")
	answers <- nil
	s.Ready(ctx, func() error {
		defer func() { asked <- struct{}{} }()
		select {
		case err := <-answers:
			return err
		default:
			cancel()
			return errors.New("enough")
		}
	})
	contains(t, next(), "READY=1")
	contains(t, next(), "WATCHDOG=1")
	contains(t, next(), "WATCHDOG=1")
	for range 4 {
		<-asked
	}
	if err := l.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, err := l.Read(make([]byte, 16)); err == nil {
		t.Errorf("the watchdog was fed by a box that is not alive (%d bytes)", n)
	}
}
