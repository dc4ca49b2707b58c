package config

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/edged-io/edged/internal/topic"
)

const (
	maxApps     = 256
	maxSubjects = 4096 // of all streams of a box
)

// LoadApps reads the apps of the box as the function of that name does, and checks them as CheckApps of the device file.
func (d *Device) LoadApps() ([]*App, error) {
	apps, faults := loadApps(d.Apps.Dir, d.CheckApps)
	return apps, faults.err()
}

// LoadApps reads each folder in dir that has an app.toml, in the order of their names; everything else in dir is ignored, and so are folders whose name
// begins with a dot. A dir that does not exist has no apps. When something is wrong, within an app or between them, the error is a Faults, and the apps
// without a fault of their own are returned beside it.
func LoadApps(dir string) ([]*App, error) {
	apps, faults := loadApps(dir, CheckApps)
	return apps, faults.err()
}

func loadApps(dir string, check func([]*App) Faults) ([]*App, Faults) {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, Faults{{File: dir, Line: 1, Reason: "cannot be read: " + plainCause(err).Error()}}
	}
	var apps []*App
	var faults Faults
	for _, e := range entries {
		folder := filepath.Join(dir, e.Name())
		if e.Name()[0] == '.' || !isApp(folder, e) {
			continue
		}
		if len(apps) == maxApps {
			return apps, append(faults, Fault{File: folder, Line: 1, Reason: "more than " + strconv.Itoa(maxApps) + " apps"})
		}
		app, bad := loadApp(folder)
		if faults = append(faults, bad...); len(bad) == 0 {
			apps = append(apps, app)
		}
	}
	return apps, append(faults, check(apps)...)
}

// isApp reports whether a folder has a manifest, readable or not.
func isApp(folder string, e fs.DirEntry) bool {
	if e.Type()&(fs.ModeDir|fs.ModeSymlink) == 0 {
		return false
	}
	_, err := os.Lstat(filepath.Join(folder, ManifestName))
	return err == nil
}

// CheckApps returns what is wrong between apps that are right by themselves, nil if nothing: names of apps, streams and subscriptions and GPIO lines that two
// of them have, streams whose subjects overlap, and HTTP requests that two of them take.
func CheckApps(apps []*App) Faults {
	var faults Faults
	first := make(map[string]string)  // owner of a name, by kind and name
	queues := make(map[string]Source) // one of the receivers, by name
	claimAs := func(a *App, kind, name, owner string) {
		if other, ok := first[kind+" "+name]; ok && other != owner {
			faults = append(faults, a.fault(kind+" "+strconv.Quote(name)+" is also in "+other))
			return
		}
		first[kind+" "+name] = owner
	}
	claim := func(a *App, kind, name string) { claimAs(a, kind, name, a.Dir) }
	for _, a := range apps {
		claim(a, "app", a.Name)
		for _, s := range a.Streams {
			claim(a, "stream", s.Name)
		}
		for _, s := range a.Subscriptions {
			claim(a, "subscription", s.Name)
		}
		for _, s := range a.sources() {
			owner := a.Dir
			if s.Queue { // its receivers in all apps own it together
				owner = "queue " + s.Filters[0]
				if o, ok := queues[s.Name]; ok && (o.Pull != s.Pull || o.QoS != s.QoS) {
					faults = append(faults, a.fault("queue "+strconv.Quote(s.Topic)+" has another delivery or qos in another app: its receivers share one subscription"))
				}
				queues[s.Name] = s
			}
			claimAs(a, "stream", s.Name, owner)
			claimAs(a, "subscription", s.Name, owner)
		}
		for _, o := range a.Outlets {
			claim(a, "stream", o.Stream)
		}
		for _, l := range a.GPIO {
			claim(a, "gpio line", l.Chip+"/"+strconv.Itoa(l.Line))
		}
	}
	return slices.Concat(faults, overlaps(apps), pushes(apps), httpConflicts(apps)).sorted()
}

// pushes finds subjects to push to that a stream of another app holds.
func pushes(apps []*App) (faults Faults) {
	for _, a := range apps {
		for _, sub := range a.Subscriptions {
			for _, o := range apps {
				for _, s := range o.Streams {
					if o != a && sub.Push != "" && slices.ContainsFunc(s.Subjects, func(f string) bool { return topic.Match(f, sub.Push) }) {
						faults = append(faults, a.fault("subscription "+sub.Name+" pushes to "+strconv.Quote(sub.Push)+", which stream "+s.Name+" in "+o.Dir+" holds"))
					}
				}
			}
		}
	}
	return faults
}

func (a *App) fault(reason string) Fault {
	return Fault{File: filepath.Join(a.Dir, ManifestName), Line: 1, Reason: reason}
}

// sources returns all places the app's messages come from.
func (a *App) sources() []Source {
	var all []Source
	for _, s := range a.MQTT {
		if len(s.Filters) > 0 {
			all = append(all, s.Source)
		}
	}
	for _, s := range a.NATS {
		if len(s.Filters) > 0 {
			all = append(all, s.Source)
		}
	}
	for _, s := range a.Local {
		all = append(all, s.Source)
	}
	for _, s := range a.Messaging {
		all = append(all, s.Source)
	}
	return all
}

// overlaps finds subjects that streams of two apps hold.
func overlaps(apps []*App) Faults {
	type held struct {
		app             *App
		stream, subject string
	}
	var all []held
	var faults Faults
	for _, a := range apps {
		for _, s := range a.Streams {
			for _, subject := range s.Subjects {
				i := slices.IndexFunc(all, func(h held) bool { return h.app != a && topic.Overlap(h.subject, subject) })
				if i >= 0 {
					h := all[i]
					faults = append(faults, a.fault("subject "+strconv.Quote(subject)+" of stream "+s.Name+" overlaps "+strconv.Quote(h.subject)+" of stream "+h.stream+" in "+h.app.Dir))
				}
				if all = append(all, held{a, s.Name, subject}); len(all) > maxSubjects {
					return append(faults, a.fault("more than "+strconv.Itoa(maxSubjects)+" subjects in the streams of all apps"))
				}
			}
		}
	}
	return faults
}

// QueueName returns the name of the inbox stream and of the subscription that all receivers of a queue share: what can be read of filter, its subject
// filter, and a few digits that tell it from every other one. at is the URL of the broker that has the queue, "" for the box itself.
func QueueName(at, filter string) string {
	readable := strings.NewReplacer(".", "-", "*", "any", ">", "all").Replace(filter[:min(len(filter), 40)])
	readable = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '_'
	}, readable)
	sum := sha256.Sum256([]byte(at + " " + filter))
	return "queue-" + readable + "-" + hex.EncodeToString(sum[:4])
}

// Feed is one durable subscription of the actor of a source.
type Feed struct {
	Subscription string // its name, unique on the box
	Stream       string // a declared stream, or Source.Name for the inbox stream of the source
	Filter       string
}

// Feeds returns the subscriptions that together give the actor of a source each of its messages once. A message whose subject is in a declared stream of
// any of the apps is kept there and nowhere else; there is an inbox stream for what is left of each filter.
func Feeds(apps []*App, s Source) []Feed {
	var feeds []Feed
	for i, f := range s.Filters {
		suffix := ""
		if i > 0 {
			suffix = ".parent"
		}
		whole := false
		for _, a := range apps {
			for _, st := range a.Streams {
				whole = whole || slices.ContainsFunc(st.Subjects, func(t string) bool { return topic.Covers(t, f) })
				if slices.ContainsFunc(st.Subjects, func(t string) bool { return topic.Overlap(t, f) }) {
					// Names in a manifest have no dot, so this one is nobody else's.
					feeds = append(feeds, Feed{s.Name + "." + st.Name + suffix, st.Name, f})
				}
			}
		}
		if !whole {
			feeds = append(feeds, Feed{s.Name + suffix, s.Name, f})
		}
	}
	return feeds
}
