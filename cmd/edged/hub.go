package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/spf13/cobra"

	"github.com/edged-io/edged/broker"
	"github.com/edged-io/edged/internal/config"
	"github.com/edged-io/edged/internal/ota"
)

// hubFlags say how to reach a hub.
type hubFlags struct{ server, creds, domain string }

// registerServer adds the flags of a verb that needs no JetStream.
func (f *hubFlags) registerServer(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.server, "server", "", "URL of the hub, such as nats://hub.example:4222")
	cmd.Flags().StringVar(&f.creds, "creds", "", "credentials file for the hub")
	_ = cmd.MarkFlagFilename("creds", "creds")
}

func (f *hubFlags) register(cmd *cobra.Command) {
	f.registerServer(cmd)
	cmd.Flags().StringVar(&f.domain, "domain", "", "JetStream domain of the hub, if the server is not in it")
}

func (f *hubFlags) connect(more ...nats.Option) (*nats.Conn, error) {
	if f.server == "" {
		return nil, usageError{errors.New("--server is needed: the URL of the hub")}
	}
	opts := append(more, nats.Name("edged"), nats.Timeout(10*time.Second))
	if f.creds != "" {
		opts = append(opts, nats.UserCredentials(f.creds))
	}
	nc, err := nats.Connect(f.server, opts...)
	if err != nil {
		return nil, unreachable{fmt.Errorf("hub %s: %w", withoutPasswords(f.server), err)}
	}
	return nc, nil
}

// withoutPasswords is a list of URLs as it may be shown.
func withoutPasswords(servers string) string {
	all := strings.Split(servers, ",")
	for i, s := range all {
		if u, err := url.Parse(strings.TrimSpace(s)); err == nil {
			all[i] = u.Redacted()
		} else if at := strings.LastIndexByte(s, '@'); at >= 0 {
			all[i] = s[at+1:]
		}
	}
	return strings.Join(all, ",")
}

func newHub() *cobra.Command {
	return group("hub", "The NATS deployment that boxes sync with", newHubInit(), newHubPermissions(), newHubVerify())
}

func newHubInit() *cobra.Command {
	var f hubFlags
	var replicas int
	var asJSON bool
	cmd := &cobra.Command{
		Use: "init", Short: "Create what a fleet needs on a hub; run it again at will", Args: usage(cobra.NoArgs),
		Example: "  edged hub init --server nats://hub.example:4222 --replicas 3",
		RunE: func(cmd *cobra.Command, _ []string) error {
			nc, err := f.connect()
			if err != nil {
				return err
			}
			defer nc.Close()
			ctx, cancel := context.WithTimeout(cmd.Context(), time.Minute)
			defer cancel()
			changes, err := broker.InitHub(ctx, nc, broker.HubInitOptions{Replicas: replicas, Domain: f.domain})
			if asJSON {
				return errors.Join(err, printJSON(cmd.OutOrStdout(), list[broker.HubChange]{changes}))
			}
			table(cmd.OutOrStdout(), func(row func(...any)) {
				for _, c := range changes {
					row(c.Action, c.Name, c.Detail)
				}
			})
			return err
		},
	}
	f.register(cmd)
	cmd.Flags().IntVar(&replicas, "replicas", 0, "replicas in a cluster, 1 to 5; 0 leaves what is there")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return cmd
}

func newHubPermissions() *cobra.Command {
	var device, domain, lattice string
	var groups []string
	var classicKits, asJSON bool
	cmd := &cobra.Command{
		Use: "permissions", Short: "Print the allow lists that keep a box to its own lane, key and consumer", Args: usage(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := broker.HubPermissions(device, groups, domain, lattice)
			if err != nil {
				return usageError{err}
			}
			if classicKits {
				p.AllowClassicKits()
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), p)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), p.Text())
			return err
		},
	}
	cmd.Flags().StringVar(&device, "device", "", "device id")
	cmd.Flags().StringSliceVar(&groups, "group", nil, "a group of the device; may be given more than once")
	cmd.Flags().StringVar(&domain, "domain", "hub", "JetStream domain of the hub, as the box names it")
	cmd.Flags().StringVar(&lattice, "lattice", "default", "lattice that the box takes part in; \"\" for none")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	cmd.Flags().BoolVar(&classicKits, "classic-kits", false, "for large payloads of providers of classic kits; the box can then read what others on the account are answered, but for boxes")
	_ = cmd.MarkFlagRequired("device")
	return cmd
}

func newPush() *cobra.Command {
	var f hubFlags
	var device string
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "push DIR", Short: "Push an app to a box over the air", Args: usage(cobra.ExactArgs(1)),
		Long: `Push the app in DIR to a box: upload its files to the hub, those it lacks, and make
it the desired state of the device. Then wait until the box has committed it or
rolled it back. A box that is away gets it when it comes back.`,
		Example: "  edged push --server nats://hub.example:4222 --device press-7 ./greenhouse",
		RunE: func(cmd *cobra.Command, args []string) error {
			app, err := config.LoadApp(args[0])
			if err != nil {
				return err
			}
			nc, err := f.connect()
			if err != nil {
				return err
			}
			defer nc.Close()
			return push(cmd.Context(), nc, cmd.OutOrStdout(), wait, ota.PushOptions{
				Domain: f.domain, Device: device, Dir: args[0], App: app.Name, Version: app.Version,
			})
		},
	}
	f.register(cmd)
	cmd.Flags().StringVar(&device, "device", "", "device id")
	cmd.Flags().DurationVar(&wait, "wait", time.Minute, "how long to wait for the box; 0 does not wait")
	_ = cmd.MarkFlagRequired("device")
	return cmd
}

func push(ctx context.Context, nc *nats.Conn, out io.Writer, wait time.Duration, o ota.PushOptions) error {
	o.Progress = func(p ota.Progress) {
		switch {
		case p.Uploaded != "":
			fmt.Fprintf(out, "uploaded   %s\n", p.Uploaded)
		case p.Present != "":
			fmt.Fprintf(out, "present    %s\n", p.Present)
		case p.Desired != nil:
			fmt.Fprintf(out, "desired    %s %s on %s\n", p.Desired.App, p.Desired.Version, o.Device)
		case p.Reported != nil:
			fmt.Fprintf(out, "%-10s %s\n", p.Reported.State, p.Reported.Error)
		}
	}
	desired, err := ota.Push(ctx, nc, o)
	if err != nil || wait == 0 {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	_, err = ota.Wait(waiting, nc, o, desired)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return unreachable{hinted{
			fmt.Errorf("device %s has not answered for good within %s", o.Device, wait),
			"it will take the app when it is connected; see edged status --server … --device " + o.Device,
		}}
	}
	return err
}

// words joins what a list says on one line.
func words(all []string) string { return strings.Join(all, " ") }
