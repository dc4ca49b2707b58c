package httpserver

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/edged-io/edged/internal/httpsettings"
)

// certificate is a pair of files that is read again when they change. What was
// read last goes on where they make no sense.
type certificate struct {
	files httpsettings.TLS
	log   *slog.Logger

	mu      sync.Mutex // guards what follows
	cert    *tls.Certificate
	stamp   [2]stamp
	looked  time.Time
	failing bool
}

// stamp tells versions of a file apart.
type stamp struct {
	changed time.Time
	size    int64
}

// lookEvery is how often the files are looked at, at most.
const lookEvery = time.Second

func newCertificate(files httpsettings.TLS, log *slog.Logger) (*certificate, error) {
	c := &certificate{files: files, log: log}
	now, err := c.stamps()
	if err == nil {
		err = c.load(now)
	}
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return c, nil
}

func (c *certificate) stamps() (s [2]stamp, err error) {
	for i, name := range []string{c.files.Cert, c.files.Key} {
		info, err := os.Stat(name)
		if err != nil {
			return s, err
		}
		s[i] = stamp{info.ModTime(), info.Size()}
	}
	return s, nil
}

func (c *certificate) load(s [2]stamp) error {
	cert, err := tls.LoadX509KeyPair(c.files.Cert, c.files.Key)
	if err != nil {
		return err
	}
	c.cert, c.stamp, c.looked = &cert, s, time.Now()
	return nil
}

// get is tls.Config.GetCertificate.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) < lookEvery {
		return c.cert, nil
	}
	c.looked = time.Now()
	now, err := c.stamps()
	if err == nil && now != c.stamp {
		if err = c.load(now); err == nil {
			c.log.Info("certificate read again", "file", c.files.Cert)
		}
	}
	switch {
	case err != nil && !c.failing:
		c.log.Error("certificate can not be read, the one of before goes on", "file", c.files.Cert, "err", err)
	case err == nil && c.failing:
		c.log.Info("certificate can be read again", "file", c.files.Cert)
	}
	c.failing = err != nil
	return c.cert, nil
}
