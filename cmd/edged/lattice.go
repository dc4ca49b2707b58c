package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/control"
)

// How long hosts have to say that they are there: all of them, which is waited for in any case, and the one that is meant.
const (
	askAround = 2 * time.Second
	askOne    = 5 * time.Second
)

// latticeFlags say which lattice is meant, and which host of it.
type latticeFlags struct {
	hub             hubFlags
	config, lattice string
	device          string // of a verb that is about one host
}

// register adds the flags of a verb about a lattice.
func (f *latticeFlags) register(cmd *cobra.Command) {
	configFlag(cmd, &f.config)
	f.hub.registerServer(cmd)
	cmd.Flags().StringVar(&f.lattice, "lattice", "default", "name of the lattice, with --server")
}

// registerHost adds those of a verb about a host of it.
func (f *latticeFlags) registerHost(cmd *cobra.Command) {
	f.register(cmd)
	cmd.Flags().StringVar(&f.device, "device", "", "another box: its device id, or the N… key of a host")
	_ = cmd.RegisterFlagCompletionFunc("device", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return f.complete(cmd, func(ctx context.Context, c *control.Client) (names []string, err error) {
			all, err := c.Hosts(ctx, askAround/4)
			for _, h := range all {
				names = append(names, h.FriendlyName)
			}
			return names, err
		})
	})
}

// An operator is a connection into a lattice.
type operator struct {
	*control.Client
	nc   *nats.Conn
	box  string // device id of the box on this machine; "" for a connection through the hub
	name string // of the lattice
}

// do runs f with a connection. It ends early, with a reason, if the login may not do what f needs.
func (f *latticeFlags) do(cmd *cobra.Command, run func(context.Context, *operator) error) error {
	ctx, cancel := context.WithCancelCause(cmd.Context())
	defer cancel(nil)
	o, err := f.connect(cmd, func(err error) {
		cancel(hinted{err, "see edged hub permissions --help for what a box may do; who commands boxes needs wasmbus.ctl.>, wasmbus.evt.> and _INBOX.>"})
	})
	if err != nil {
		return err
	}
	defer o.nc.Close()
	err = run(ctx, o)
	if err == nil && cmd.Context().Err() == nil {
		err = context.Cause(ctx) // what follows events ends well without a reason
	}
	if errors.Is(err, control.ErrNobody) {
		hint := "edged host ls shows who is there; a box that is away has to be connected first"
		if o.box != "" && f.device == "" {
			hint = "is control = false in [lattice] of its device file?"
		}
		return unreachable{hinted{err, hint}}
	}
	return err
}

// connect finds the lattice: that of the box on this machine, or one on a hub.
func (f *latticeFlags) connect(cmd *cobra.Command, forbidden func(error)) (*operator, error) {
	refused := nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if errors.Is(err, nats.ErrPermissionViolation) {
			forbidden(err)
		}
	})
	o := &operator{name: f.lattice}
	if f.hub.server != "" {
		nc, err := f.hub.connect(refused)
		if err != nil {
			return nil, err
		}
		o.nc = nc
	} else {
		if cmd.Flags().Changed("lattice") {
			return nil, usageOf(cmd, errors.New("--lattice is for --server; the box's own is in its device file"))
		}
		d, err := config.LoadDevice(f.config)
		if err != nil {
			return nil, err
		}
		if o.nc, err = connectBox(d, refused); err != nil {
			return nil, err
		}
		o.box, o.name = d.Device.ID, d.Lattice.Name
	}
	c, err := control.NewClient(o.nc, o.name, "")
	if err != nil {
		o.nc.Close()
		return nil, usageOf(cmd, err)
	}
	o.Client = c
	return o, nil
}

// connectBox connects to the lattice of the box on this machine, with the login that it leaves in its state directory.
func connectBox(d *config.Device, opts ...nats.Option) (*nats.Conn, error) {
	gone := func(err error) error {
		return unreachable{hinted{
			fmt.Errorf("box %s does not answer: %w", d.Device.ID, err),
			"is it running with this device file, and do you have the right to its state directory?",
		}}
	}
	b, err := os.ReadFile(filepath.Join(d.Device.StateDir, "lattice.json"))
	if err != nil {
		return nil, gone(err)
	}
	var login struct{ URL, User, Password string }
	if err := json.Unmarshal(b, &login); err != nil {
		return nil, gone(fmt.Errorf("lattice.json: %w", err))
	}
	if login.URL == "" {
		return nil, unreachable{hinted{
			fmt.Errorf("box %s takes no NATS clients", d.Device.ID),
			"set [nats] listen in its device file, such as \"127.0.0.1:4222\", or go through the hub with --server",
		}}
	}
	nc, err := nats.Connect(login.URL, append(opts, nats.Name("edged"), nats.Timeout(10*time.Second), nats.UserInfo(login.User, login.Password))...)
	if err != nil {
		return nil, gone(err)
	}
	return nc, nil
}

// A peer is a host of the lattice.
type peer struct {
	key  string
	name string
}

// host is the one that a verb is about: that of --device, or the box on this machine.
func (o *operator) host(ctx context.Context, cmd *cobra.Command, device string) (peer, error) {
	if device == "" {
		if o.box == "" {
			return peer{}, usageOf(cmd, errors.New("--server needs --device"))
		}
		device = o.box
	}
	key, err := o.Find(ctx, device, askOne)
	return peer{key, device}, err
}

// hosts are those that a listing is about: the one that is meant, or through a hub all that are there.
func (o *operator) hosts(ctx context.Context, cmd *cobra.Command, device string) ([]peer, error) {
	if device != "" || o.box != "" {
		h, err := o.host(ctx, cmd, device)
		return []peer{h}, err
	}
	all, err := o.Hosts(ctx, askAround)
	peers := make([]peer, 0, len(all))
	for _, h := range all {
		peers = append(peers, peer{h.ID, h.FriendlyName})
	}
	return peers, err
}

// of says whose error it is.
func (p peer) of(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", p.name, err)
}

// inventories gives what each host has to f.
func (f *latticeFlags) inventories(cmd *cobra.Command, each func(peer, control.State)) error {
	return f.do(cmd, func(ctx context.Context, o *operator) error {
		all, err := o.hosts(ctx, cmd, f.device)
		if err != nil {
			return err
		}
		for _, h := range all {
			st, err := o.State(ctx, h.key)
			if err != nil {
				return h.of(err)
			}
			each(h, st)
		}
		return nil
	})
}

// A command is what a host does after it has accepted it.
type command struct {
	latticeFlags
	wait time.Duration
}

func (c *command) register(cmd *cobra.Command) {
	c.registerHost(cmd)
	cmd.Flags().DurationVar(&c.wait, "wait", time.Minute, "how long to wait for the outcome; 0 does not wait")
}

// An order is one command, for one host.
type order struct {
	*operator
	host peer
	out  io.Writer
	wait time.Duration
}

// run finds the host, and has it do something.
func (c *command) run(cmd *cobra.Command, do func(context.Context, *order) error) error {
	return c.do(cmd, func(ctx context.Context, op *operator) error {
		h, err := op.host(ctx, cmd, c.device)
		if err != nil {
			return err
		}
		return h.of(do(ctx, &order{op, h, cmd.OutOrStdout(), c.wait}))
	})
}

// await gives a command with do, and tells how it goes: that it was accepted, how long it takes, and what came of it.
func (o *order) await(ctx context.Context, what string, do func(context.Context, func() bool) (control.State, error), done func(control.State) string) error {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	var shown chan struct{} // closed by the goroutine that shows progress
	st, err := do(waiting, func() bool {
		o.tell("accepted", what+" on "+o.host.name)
		if o.wait == 0 {
			return false
		}
		shown = make(chan struct{})
		go func() { // waited for below
			defer close(shown)
			o.progress(ended, cancel)
		}()
		return true
	})
	close(ended)
	if shown != nil {
		<-shown
	}
	switch {
	case errors.Is(err, control.ErrNotDone) && ctx.Err() == nil:
		return unreachable{hinted{
			fmt.Errorf("%s: no outcome within %s", what, o.wait),
			"the host goes on with it; see edged events, and the listings",
		}}
	case err != nil || shown == nil:
		return err
	}
	o.tell("done", done(st))
	return nil
}

// tellEvery is how often who waits is told that it does.
const tellEvery = 5 * time.Second

// progress tells that there is no outcome yet, until there is one or patience ends.
func (o *order) progress(ended <-chan struct{}, giveUp func()) {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	begin := time.Now()
	patience := time.After(o.wait)
	for {
		select {
		case <-ended:
			return
		case <-tick.C:
			o.tell("waiting", time.Since(begin).Round(time.Second).String())
		case <-patience:
			giveUp()
			return
		}
	}
}

func (o *order) tell(what, text string) { fmt.Fprintf(o.out, "%-10s %s\n", what, oneLine(text)) }

// complete asks for what may come next. Without an answer there is nothing to offer.
func (f *latticeFlags) complete(cmd *cobra.Command, ask func(context.Context, *control.Client) ([]string, error)) ([]string, cobra.ShellCompDirective) {
	var all []string
	err := f.do(cmd, func(ctx context.Context, o *operator) (err error) {
		ctx, cancel := context.WithTimeout(ctx, askAround)
		defer cancel()
		all, err = ask(ctx, o.Client)
		return err
	})
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// completeFrom offers what the host that is meant has, as the first argument.
func (f *latticeFlags) completeFrom(has func(control.State) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		var all []string
		if err := f.inventories(cmd, func(_ peer, st control.State) { all = append(all, has(st)...) }); err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// valuesOf are those of KEY=VALUE arguments, on top of what a file has: a JSON object of texts; - is standard input.
func valuesOf(cmd *cobra.Command, args []string, file string) (map[string]string, error) {
	given, err := pairs(args)
	if err != nil {
		return nil, usageOf(cmd, err)
	}
	if file == "" {
		return given, nil
	}
	var b []byte
	if file == "-" {
		b, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), control.MaxRequestBytes))
	} else {
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	if err := json.Unmarshal(b, &values); err != nil {
		return nil, usageError{fmt.Errorf("%s: %w; it has to be one JSON object of texts", file, err)}
	}
	if values == nil { // the file says null
		return given, nil
	}
	maps.Copy(values, given)
	return values, nil
}

// texts are pairs for a cell of a table.
func texts(values map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(values)) {
		all = append(all, k+"="+values[k])
	}
	return words(all)
}

// known is a map that is never null in JSON.
func known(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// whyNot is the error of a command about something that the host has not shown: it says best what there is.
func whyNot(missing, err error) error {
	if err != nil && missing != nil {
		return missing
	}
	return err
}

// pick is the key of what a host has under a key, a name or a reference.
func pick[T any](kind, wanted string, all []T, of func(T) (key, name, ref string)) (string, error) {
	var keys, there []string
	for _, x := range all {
		key, name, ref := of(x)
		there = append(there, cmp.Or(name, key))
		if key == wanted {
			return key, nil
		}
		if (name == wanted || ref == wanted) && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(there)
	switch there = slices.Compact(there); {
	case len(keys) == 1:
		return keys[0], nil
	case len(keys) > 1:
		return "", usageError{fmt.Errorf("%s %q is one of several: %s", kind, wanted, words(keys))}
	case len(there) == 0:
		return "", usageError{fmt.Errorf("no %s runs there", kind)}
	}
	return "", usageError{fmt.Errorf("no such %s: %q; there are: %s", kind, wanted, strings.Join(there, ", "))}
}
