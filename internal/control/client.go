package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edged-io/edged/internal/claims"
	"github.com/edged-io/edged/internal/nameform"
	"github.com/edged-io/edged/lattice"
)

// Errors of a client that callers tell apart.
var (
	// ErrNobody says that no host answers: none is there, or the one that was named is not.
	ErrNobody = errors.New("nobody answers")
	// ErrNotDone says that a command was accepted, and has come to nothing yet.
	ErrNotDone = errors.New("not done yet")
)

// answerTimeout is how long a client waits for an answer. A change that is answered when it is made may take requestTimeout.
const answerTimeout = requestTimeout + 5*time.Second

// A Client gives commands to the hosts of a lattice, in the words of version 0: to those of this package, and to classic ones. Only configurations are in
// those of version 1, which has them by name. What hosts answer is read generously; what is missing in it is zero. Errors of what is asked of one host do not name it.
// Its methods may be called from any goroutine.
type Client struct {
	conn    *nats.Conn
	lattice string
	v0, v1  string // prefixes of subjects, with the dot at their end
	events  string
}

// NewClient returns a client for a lattice. conn is a connection into its account; prefix is that of the subjects, "wasmbus.ctl" if empty.
func NewClient(conn *nats.Conn, latticeName, prefix string) (*Client, error) {
	if !nameform.Form(MaxName).MatchString(latticeName) {
		return nil, fmt.Errorf("lattice %.80q: a name has letters, digits, _ and -", latticeName)
	}
	if prefix == "" {
		prefix = defaultPrefix
	}
	return &Client{
		conn: conn, lattice: latticeName,
		v0: prefix + "." + latticeName + ".", v1: prefix + ".v1." + latticeName + ".", events: eventsPrefix + latticeName,
	}, nil
}

// Hosts are the hosts that say within this time that they are there, by name: what they are, and not what they have.
func (c *Client) Hosts(ctx context.Context, within time.Duration) ([]State, error) {
	var all []State
	err := c.ping(ctx, within, func(st State) bool {
		if !slices.ContainsFunc(all, func(other State) bool { return other.ID == st.ID }) {
			all = append(all, st)
		}
		return true
	})
	slices.SortFunc(all, func(a, b State) int {
		return strings.Compare(a.FriendlyName+"\x00"+a.ID, b.FriendlyName+"\x00"+b.ID)
	})
	return all, err
}

// Find is the key of the host that has this key, or this name; of a box the name is its device id.
func (c *Client) Find(ctx context.Context, name string, within time.Duration) (string, error) {
	if isKey(name, claims.Server) {
		return name, nil
	}
	var id string
	var others []string
	err := c.ping(ctx, within, func(st State) bool {
		if st.FriendlyName == name {
			id = st.ID
		}
		others = append(others, st.FriendlyName)
		return id == ""
	})
	if id != "" || err != nil {
		return id, err
	}
	slices.Sort(others)
	return "", fmt.Errorf("host %.80q: %w; in the lattice %s there are: %s", name, ErrNobody, c.lattice, strings.Join(others, ", "))
}

// ping gives each host that answers to more, which says whether to go on.
func (c *Client) ping(ctx context.Context, within time.Duration, more func(State) bool) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	inbox := c.conn.NewInbox()
	sub, err := c.conn.SubscribeSync(inbox)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }() // fails on a closed connection only
	if err := c.conn.PublishRequest(c.v0+"ping.hosts", inbox, nil); err != nil {
		return err
	}
	answered := false
	for {
		m, err := sub.NextMsgWithContext(ctx)
		switch {
		case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded) && !answered:
			return fmt.Errorf("%w in the lattice %s", ErrNobody, c.lattice)
		case errors.Is(err, context.DeadlineExceeded):
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return err
		}
		// Anybody may answer; what is no host is none.
		var h host0
		if json.Unmarshal(m.Data, &h) != nil || h.ID == "" {
			continue
		}
		answered = true
		if !more(State{
			ID: h.ID, Issuer: h.Issuer, FriendlyName: h.FriendlyName, Version: h.Version, Labels: h.Labels,
			Started: time.Now().Add(-seconds(h.UptimeSeconds)), CtlHost: h.CtlHost, RPCHost: h.RPCHost,
		}) {
			return nil
		}
	}
}

// seconds is a number of them that a stranger sent.
func seconds(n int64) time.Duration {
	const century = 100 * 366 * 24 * 60 * 60
	return time.Duration(max(0, min(n, century))) * time.Second
}

// State is what a host has: its actors, its providers and its labels. It has neither links nor configurations, which are of the lattice.
func (c *Client) State(ctx context.Context, host string) (State, error) {
	var inv inventory
	if err := c.ask(ctx, c.v0+"get."+host+".inv", nil, &inv); err != nil {
		return State{}, err
	}
	return inv.state(), nil
}

// state is what an inventory tells, of this host or of older ones, which list each instance of an actor.
func (inv inventory) state() State {
	st := State{
		ID: inv.HostID, FriendlyName: inv.FriendlyName, Labels: inv.Labels, Version: inv.Version, Issuer: inv.Issuer,
		Started: time.Now().Add(-seconds(inv.UptimeSeconds)),
	}
	for _, a := range inv.Actors {
		for _, i := range a.Instances {
			ref := i.Ref
			if ref == "" {
				ref = a.Ref
			}
			n := max(i.Max, 1)
			same := func(o Actor) bool {
				return o.Key == a.ID && o.Ref == ref && includes(o.Annotations, i.Annotations) && includes(i.Annotations, o.Annotations)
			}
			if at := slices.IndexFunc(st.Actors, same); at >= 0 {
				st.Actors[at].Max += min(n, MaxInstances-min(st.Actors[at].Max, MaxInstances))
				continue
			}
			st.Actors = append(st.Actors, Actor{
				ID: a.ID, Key: a.ID, Ref: ref, Name: a.Name, Revision: i.Revision, Annotations: i.Annotations, Max: n, Instance: i.Instance,
			})
		}
	}
	for _, p := range inv.Providers {
		st.Providers = append(st.Providers, Provider{
			ID: p.ID, Key: p.ID, Ref: p.Ref, Contract: p.Contract, LinkName: p.LinkName, Name: p.Name, Revision: p.Revision,
			Annotations: p.Annotations, Instance: p.Instance,
		})
	}
	return st
}

// Links are those of the lattice, as one of its hosts has them.
func (c *Client) Links(ctx context.Context) ([]Link, error) {
	var reply struct {
		Links []link0 `json:"links"`
	}
	if err := c.ask(ctx, c.v0+"get.links", nil, &reply); err != nil {
		return nil, fmt.Errorf("links: %w", err)
	}
	all := make([]Link, 0, len(reply.Links))
	for _, l := range reply.Links {
		all = append(all, Link{Link: lattice.Link{Actor: l.Actor, Provider: l.Provider, Contract: l.Contract, Name: l.Name, Values: l.Values}})
	}
	return all, nil
}

// PutLink puts a link, in place of one with the same actor, contract and name.
func (c *Client) PutLink(ctx context.Context, l lattice.Link) error {
	err := c.command(ctx, "linkdefs.put", link0{Actor: l.Actor, Provider: l.Provider, Name: l.Name, Contract: l.Contract, Values: some(l.Values)})
	if err != nil {
		return fmt.Errorf("link %s of %s: %w", l.Contract, l.Actor, err)
	}
	return nil
}

// DeleteLink deletes the link with this actor, contract and name; one that is not there is no error.
func (c *Client) DeleteLink(ctx context.Context, l lattice.Link) error {
	err := c.command(ctx, "linkdefs.del", map[string]string{"actor_id": l.Actor, "contract_id": l.Contract, "link_name": l.Name})
	if err != nil {
		return fmt.Errorf("link %s of %s: %w", l.Contract, l.Actor, err)
	}
	return nil
}

// PutLabel puts a label of a host.
func (c *Client) PutLabel(ctx context.Context, host, key, value string) error {
	return c.command(ctx, "labels."+host+".put", map[string]string{"key": key, "value": value})
}

// DeleteLabel deletes a label of a host; one that is not there is no error.
func (c *Client) DeleteLabel(ctx context.Context, host, key string) error {
	// Some hosts insist on a value.
	return c.command(ctx, "labels."+host+".del", map[string]string{"key": key, "value": ""})
}

// StopHost has a host stop, which has so long for it.
func (c *Client) StopHost(ctx context.Context, host string, within time.Duration) error {
	return c.command(ctx, "cmd."+host+".stop", map[string]any{"host_id": host, "timeout": within.Milliseconds()})
}

// Config is a configuration; false says that there is none of that name.
func (c *Client) Config(ctx context.Context, name string) (map[string]string, bool, error) {
	var values map[string]string
	found, err := c.config(ctx, "get", name, nil, &values)
	return values, found, err
}

// PutConfig makes values the configuration of that name, all of it.
func (c *Client) PutConfig(ctx context.Context, name string, values map[string]string) error {
	_, err := c.config(ctx, "put", name, some(values), nil)
	return err
}

// DeleteConfig deletes a configuration; one that is not there is no error.
func (c *Client) DeleteConfig(ctx context.Context, name string) error {
	_, err := c.config(ctx, "del", name, nil, nil)
	return err
}

// config asks in version 1. found says that there was a response.
func (c *Client) config(ctx context.Context, verb, name string, body, into any) (found bool, err error) {
	if !plain(name) || name == "" {
		return false, fmt.Errorf("configuration %.80q: a name has no space, control character, '.', '*' or '>'", name)
	}
	if found, err = c.ask1(ctx, "config."+verb+"."+name, body, into); err != nil {
		return false, fmt.Errorf("configuration %s: %w", name, err)
	}
	return found, nil
}

// Configs are the names of the configurations, sorted. Boxes alone list them.
func (c *Client) Configs(ctx context.Context) (names []string, err error) {
	if _, err = c.ask1(ctx, "config.get", nil, &names); err != nil {
		return nil, fmt.Errorf("configurations: %w", err)
	}
	return names, nil
}

// ask1 asks in version 1.
func (c *Client) ask1(ctx context.Context, subject string, body, into any) (found bool, err error) {
	var reply struct {
		Success  bool            `json:"success"`
		Message  string          `json:"message"`
		Response json.RawMessage `json:"response"`
	}
	err = c.ask(ctx, c.v1+subject, body, &reply)
	switch {
	case err != nil:
	case !reply.Success:
		err = errors.New(reply.Message)
	case into != nil && len(reply.Response) > 0:
		err = json.Unmarshal(reply.Response, into)
	}
	return err == nil && len(reply.Response) > 0, err
}

// command asks, and has the refusal of a command for an error.
func (c *Client) command(ctx context.Context, subject string, body any) error {
	var ack ack0
	if err := c.ask(ctx, c.v0+subject, body, &ack); err != nil {
		return err
	}
	if !ack.Accepted {
		if ack.Error == "" {
			ack.Error = "refused without a reason"
		}
		return errors.New(ack.Error)
	}
	return nil
}

// ask sends a request, which is JSON unless it is nil, and reads the answer.
func (c *Client) ask(ctx context.Context, subject string, body, into any) error {
	var data []byte
	if body != nil {
		data = mustJSON(body)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, fmt.Errorf("%w within %s", ErrNobody, answerTimeout))
	defer cancel()
	m, err := c.conn.RequestWithContext(ctx, subject, data)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return ErrNobody
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return err
	}
	// An answer that is too large, and some errors of hosts, are an acknowledgement in place of what was asked for.
	var ack ack0
	if json.Unmarshal(m.Data, &ack) == nil && ack.Error != "" && !ack.Accepted {
		return errors.New(ack.Error)
	}
	if err := json.Unmarshal(m.Data, into); err != nil {
		return fmt.Errorf("the answer is not understood: %w", err)
	}
	return nil
}
