package broker

import (
	"errors"
	"fmt"
	"strings"
)

// BoxPermissions are the allow lists of one box on the hub. They are for the user
// that its leaf connection logs in as.
type BoxPermissions struct {
	Device string `json:"device"`
	Permissions
}

// HubPermissions returns what a box needs on the hub: to write its own lanes,
// to take what is meant for it, to read its desired state, to report, and to
// fetch artifacts; and to be a host in a lattice, unless that is "". domain is the
// JetStream domain of the hub as the box names it.
//
// Whoever has these cannot write another's lane, nor read what another sent, is
// sent or is told to run, nor give commands to other hosts. docs/hub.md says what they
// cannot prevent.
func HubPermissions(device string, groups []string, domain, lattice string) (BoxPermissions, error) {
	var faults []error
	if !deviceID.MatchString(device) {
		faults = append(faults, fmt.Errorf("device id %q: must match %s", device, deviceID))
	}
	for _, g := range groups {
		if !deviceID.MatchString(g) {
			faults = append(faults, fmt.Errorf("group %q: must match %s", g, deviceID))
		}
	}
	if domain != "" && !deviceID.MatchString(domain) {
		faults = append(faults, fmt.Errorf("domain %q: must match %s", domain, deviceID))
	}
	// The lattice's object store has its name, and so would be that of artifacts.
	if lattice != "" && !deviceID.MatchString(lattice) || lattice == bucketArtifacts {
		faults = append(faults, fmt.Errorf("lattice %q: must match %s, and be another than %s", lattice, deviceID, bucketArtifacts))
	}
	if err := errors.Join(faults...); err != nil {
		return BoxPermissions{}, err
	}
	api := apiPrefix(domain)
	p := BoxPermissions{Device: device}
	p.Subscribe = []string{hubInbox(device) + ".>", StatusSubject(device), DigestSubject(device)}
	allow := func(subjects ...string) { p.Publish = append(p.Publish, subjects...) }

	lanes := subjectUp + device + ".>"
	allow(lanes, api+"STREAM.INFO."+streamUp, api+"DIRECT.GET."+streamUp+"."+lanes)
	reader := streamUp + "." + laneReader(device) // to look into its own lanes
	allow(api+"CONSUMER.CREATE."+reader+"."+lanes, api+"CONSUMER.DELETE."+reader, api+"CONSUMER.MSG.NEXT."+reader)

	allow(api + "STREAM.INFO." + streamDown)
	for _, a := range downAddresses(device, groups) {
		allow(
			api+"CONSUMER.CREATE."+streamDown+"."+a.consumer+"."+a.address+">",
			api+"CONSUMER.INFO."+streamDown+"."+a.consumer,
			api+"CONSUMER.DELETE."+streamDown+"."+a.consumer,
			api+"CONSUMER.MSG.NEXT."+streamDown+"."+a.consumer,
			"$JS.ACK."+streamDown+"."+a.consumer+".>",
			"$JS.ACK.*.*."+streamDown+"."+a.consumer+".>", // the longer form of the same
		)
	}

	desired, reported := "$KV."+bucketDesired+"."+device, "$KV."+bucketReported+"."+device
	put := reported
	if domain != "" {
		put = api + reported // so does every client that is told of a domain
	}
	allow(
		api+"STREAM.INFO.KV_"+bucketDesired,
		api+"DIRECT.GET.KV_"+bucketDesired+"."+desired,
		api+"CONSUMER.CREATE.KV_"+bucketDesired+".*."+desired, // to watch the key
		api+"CONSUMER.DELETE.KV_"+bucketDesired+".*",
		"$JS.FC.KV_"+bucketDesired+".>",
		api+"STREAM.INFO.KV_"+bucketReported,
		api+"DIRECT.GET.KV_"+bucketReported+"."+reported,
		put,
		api+"STREAM.INFO.OBJ_"+bucketArtifacts,
		api+"DIRECT.GET.OBJ_"+bucketArtifacts,
		api+"DIRECT.GET.OBJ_"+bucketArtifacts+".>",
	)
	// Answers to who asks for the state of the box. Inboxes have names that
	// cannot be guessed; those of boxes are not among these.
	allow("_INBOX.*", "_INBOX.*.*")
	if lattice != "" {
		p.joinLattice(api, lattice)
	}
	return p, nil
}

// subjectAnswers begins the subjects of answers in a lattice.
const subjectAnswers = "edge.rpc."

// LatticeInbox is where a box takes the answers to its calls in a lattice: the prefix
// of its inboxes. It is another than that of what it asks the hub, since all hosts of
// the lattice publish there.
func LatticeInbox(lattice, device string) string { return subjectAnswers + lattice + "." + device }

// joinLattice adds what a host in a lattice needs: calls both ways, to be asked and
// commanded, events, large payloads, and what is known in the lattice. api is the
// prefix of JetStream's on the hub.
func (p *BoxPermissions) joinLattice(api, lattice string) {
	rpc, events := "wasmbus.rpc."+lattice+".>", []string{"wasmbus.evt." + lattice, "wasmbus.evt." + lattice + ".>"}
	p.Subscribe = append(append(p.Subscribe, rpc, LatticeInbox(lattice, p.Device)+".>", "wasmbus.ctl."+lattice+".>", "wasmbus.ctl.v1."+lattice+".>"), events...)
	p.Publish = append(append(p.Publish, rpc, subjectAnswers+lattice+".>"), events...)
	p.Publish = append(p.Publish, api+"INFO", "$O."+lattice+".>")
	data, configs := "LATTICEDATA_"+lattice, "CONFIGDATA_"+lattice
	for _, bucket := range []string{data, configs} {
		put := "$KV." + bucket + ".>"
		if api != apiPrefix("") {
			put = api + put
		}
		p.Publish = append(p.Publish, put)
	}
	for _, s := range [][2]string{{"OBJ_" + lattice, "$O." + lattice + ".>"}, {"KV_" + data, "$KV." + data + ".>"}, {"KV_" + configs, "$KV." + configs + ".>"}} {
		stream, subjects := s[0], s[1]
		p.Publish = append(p.Publish,
			api+"STREAM.CREATE."+stream, api+"STREAM.INFO."+stream,
			api+"STREAM.MSG.GET."+stream, api+"DIRECT.GET."+stream, api+"DIRECT.GET."+stream+"."+subjects,
			api+"CONSUMER.CREATE."+stream+".*."+subjects, api+"CONSUMER.INFO."+stream+".*", api+"CONSUMER.DELETE."+stream+".*",
			"$JS.FC."+stream+".>",
		)
	}
	p.Publish = append(p.Publish, api+"STREAM.PURGE.OBJ_"+lattice) // of one object, which the server has no subject for
}

// AllowClassicKits adds what providers of classic kits on the box need of the hub: answers
// in inboxes that they name themselves, as everybody does who names none. So whoever has
// broken into the box can read what others on the hub's account are answered in such
// inboxes; boxes are not among those.
func (p *BoxPermissions) AllowClassicKits() {
	p.Subscribe = append(p.Subscribe, "_INBOX.*", "_INBOX.*.*")
}

// Text returns the lists for a reader, and as the permissions of a user in a
// nats-server configuration.
func (p BoxPermissions) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Permissions of box %s on the hub: for the user of its leaf connection, in the\n", p.Device)
	b.WriteString("# account of the fleet. With nsc: nsc add user --allow-pub … --allow-sub … with these.\n")
	b.WriteString("permissions: {\n")
	for _, list := range []struct {
		verb     string
		subjects []string
	}{{"publish", p.Publish}, {"subscribe", p.Subscribe}} {
		fmt.Fprintf(&b, "  %s: { allow: [\n", list.verb)
		for _, s := range list.subjects {
			fmt.Fprintf(&b, "    %q\n", s)
		}
		b.WriteString("  ] }\n")
	}
	b.WriteString("}\n")
	return b.String()
}
