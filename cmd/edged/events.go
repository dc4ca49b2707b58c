package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edged-io/edged/internal/control"
)

func newEvents() *cobra.Command {
	var f latticeFlags
	var asJSON, all bool
	var names []string
	var count int
	cmd := &cobra.Command{
		Use: "events", Short: "Follow what happens in the lattice", Args: usage(cobra.NoArgs),
		Long: `Follow the events of the lattice until interrupted: actors and providers that start,
stop and fail, links, configurations, labels, hosts. Heartbeats and repeated
health are shown with --all, or by their name. With --json each line is one
CloudEvents event as the host sent it.`,
		Example: "  edged events\n  edged events --server nats://hub.example:4222 --type provider_stopped --json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			left := count
			err := f.do(cmd, func(ctx context.Context, o *operator) error {
				s := newEventShower(cmd.OutOrStdout(), asJSON)
				if !asJSON {
					s.know(ctx, o)
				}
				return o.Follow(ctx, nil, func(e control.Event) error {
					if len(names) > 0 && !slices.Contains(names, e.Name) || len(names) == 0 && !all && repeated(e) {
						s.learn(e)
						return nil
					}
					if err := s.show(e); err != nil {
						return err
					}
					if left--; left == 0 {
						return errEnough
					}
					return nil
				})
			})
			if errors.Is(err, errEnough) {
				return nil
			}
			return err
		},
	}
	f.register(cmd)
	cmd.Flags().StringSliceVar(&names, "type", nil, "show these types only, such as actor_scaled; may be given more than once")
	cmd.Flags().IntVar(&count, "count", 0, "end after so many; 0 does not end")
	cmd.Flags().BoolVar(&all, "all", false, "show heartbeats and repeated health too")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each event as one line of JSON")
	return cmd
}

// errEnough ends a listing that is long enough.
var errEnough = errors.New("enough")

// repeated is what a host tells again and again.
func repeated(e control.Event) bool {
	return e.Name == "host_heartbeat" || e.Name == "health_check_status"
}

// An eventShower writes events as they come.
type eventShower struct {
	w      io.Writer
	asJSON bool
	names  map[string]string // of hosts, by key
}

func newEventShower(w io.Writer, asJSON bool) *eventShower {
	return &eventShower{w: w, asJSON: asJSON, names: map[string]string{}}
}

// know asks for the names of hosts. Without them events show keys.
func (s *eventShower) know(ctx context.Context, o *operator) {
	hosts, err := o.Hosts(ctx, askAround/4)
	if err != nil {
		return
	}
	for _, h := range hosts {
		s.names[h.ID] = h.FriendlyName
	}
}

// maxNames bounds the hosts whose names are remembered: anybody may claim to be one.
const maxNames = 10_000

// learn takes the name of a host from an event that has it.
func (s *eventShower) learn(e control.Event) {
	var host struct {
		Name string `json:"friendly_name"`
	}
	if json.Unmarshal(e.Data, &host) == nil && host.Name != "" && len(s.names) < maxNames {
		s.names[e.Source] = host.Name
	}
}

func (s *eventShower) show(e control.Event) error {
	s.learn(e)
	if s.asJSON {
		var line bytes.Buffer
		if err := json.Compact(&line, e.Raw); err != nil {
			return err
		}
		_, err := fmt.Fprintln(s.w, line.String())
		return err
	}
	name := s.names[e.Source]
	if name == "" {
		name = e.Source
	}
	_, err := fmt.Fprintf(s.w, "%s  %s  %-24s %s\n", e.Time.Local().Format(time.TimeOnly), oneLine(name), oneLine(e.Name), oneLine(summary(e.Data)))
	return err
}

// summary is what an event says, without what it says twice.
func summary(data json.RawMessage) string {
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if d.Decode(&fields) != nil {
		return string(data)
	}
	var all []string
	for _, k := range slices.Sorted(maps.Keys(fields)) {
		switch v := fields[k].(type) {
		case string:
			if v != "" && k != "host_id" {
				all = append(all, k+"="+quoted(v))
			}
		case json.Number, bool:
			all = append(all, fmt.Sprintf("%s=%v", k, v))
		case []any:
			all = append(all, k+"="+strconv.Itoa(len(v)))
		case map[string]any:
			// Claims are long, and the same for each event of an actor.
			if k != "claims" && len(v) > 0 {
				text, _ := json.Marshal(v) // it was JSON
				all = append(all, k+"="+string(text))
			}
		}
	}
	return strings.Join(all, " ")
}

// quoted is a text in quotes where it would run into the next.
func quoted(s string) string {
	if strings.ContainsAny(s, " \t\"=") {
		return strconv.Quote(s)
	}
	return s
}
