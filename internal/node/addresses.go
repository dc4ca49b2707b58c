package node

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/edged-io/edged/internal/atomicfile"
)

// Addresses are what was bound, "" for what there is not.
type Addresses struct {
	NATS  string `json:"nats"`
	MQTT  string `json:"mqtt"`
	Admin string `json:"admin"`
	// HTTP has an address for each place where an actor takes HTTP requests, by
	// <app>-httpserver-<n>, n counting from 1 in the order of the manifest.
	HTTP map[string]string `json:"http,omitempty"`
}

// addressesAgain is how long the box waits until it writes again what could not be
// written, as on a disk that is full.
const addressesAgain = 10 * time.Second

// tellAddresses writes where the box can be reached. What could not be written,
// runAddresses writes later: a disk that is full must not keep the box from working.
func (n *Node) tellAddresses() Addresses {
	n.telling.Lock()
	defer n.telling.Unlock()
	addr, err := n.writeAddresses()
	untold := len(n.health.names("addresses")) > 0
	switch {
	case err != nil:
		if !untold {
			n.log.Error("addresses are not told", "err", err)
		}
		n.health.degrade("addresses", "", err)
		select {
		case n.addressesUntold <- struct{}{}:
		default:
		}
	case untold:
		n.log.Info("addresses are told again")
		n.health.recover("addresses", "")
	}
	return addr
}

// runAddresses tells the addresses that could not be told.
func (n *Node) runAddresses(ctx context.Context) error {
	for {
		select {
		case <-n.addressesUntold:
		case <-ctx.Done():
			return nil
		}
		select {
		case <-time.After(n.addressesAgain):
			n.tellAddresses()
		case <-ctx.Done():
			return nil
		}
	}
}

// writeAddresses tells others where the box can be reached: addresses.json, and
// lattice.json, the login into the account of the lattice.
func (n *Node) writeAddresses() (Addresses, error) {
	a := Addresses{NATS: n.broker.Addr()}
	if n.listener != nil {
		a.MQTT = n.listener.Addr().String()
	}
	if n.admin != nil {
		a.Admin = n.admin.Addr().String()
	}
	for _, l := range n.http.Listeners() {
		if l.Addr != "" {
			if a.HTTP == nil {
				a.HTTP = make(map[string]string)
			}
			a.HTTP[l.Name] = l.Addr
		}
	}
	login := n.broker.LinkLogin()
	return a, errors.Join(
		n.writeJSON("addresses.json", a, 0o644),
		n.writeJSON("lattice.json", struct {
			URL      string `json:"url"`
			User     string `json:"user"`
			Password string `json:"password"`
		}{natsURL(a.NATS), login.User, login.Password}, 0o600),
	)
}

func natsURL(addr string) string {
	if addr == "" {
		return ""
	}
	return "nats://" + addr
}

func (n *Node) writeJSON(name string, v any, perm os.FileMode) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return atomicfile.Replace(filepath.Join(n.stateDir, name), append(b, '\n'), perm)
}
