package metadata

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/edged-io/edged/lattice"
)

func TestMetadata_twoBoxes(t *testing.T) {
	h := newHub(t)
	a, b := newBox(t, h), newBox(t, h)
	l := link("one", "a")
	l.Values = map[string]string{"URL": "redis://x", "odd": "<&>\u2028"}
	a.put(l)
	b.has("one=a" + values(l))
	b.put(link("two", "b"))
	b.put(link("one", "b")) // without values
	a.has("one=b two=b")
	a.delete(link("one", ""))
	a.delete(link("never", ""))
	b.has("two=b")
	c := Claims{Subject: actor, Issuer: account, Name: "echo", Revision: 4, Caps: []string{"wasmcloud:httpserver"}, CallAlias: "echo"}
	if err := a.PutClaims(c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "claims do not come", func() bool { return reflect.DeepEqual(b.Claims(), []Claims{c}) })
	for _, x := range []*box{a, b} {
		x.synced()
		if got := x.Conflicts(); len(got) > 0 {
			t.Errorf("conflicts: %+v", got)
		}
	}
}

// A change that is in force is told to nobody but others.
func TestMetadata_Changed(t *testing.T) {
	h := newHub(t)
	a, b := newBox(t, h), newBox(t, h)
	a.synced()
	b.synced()
	a.put(link("one", "a"))
	select {
	case <-b.tell:
		b.has("one=a")
	case <-time.After(patience):
		t.Fatal("the other box is not told")
	}
	a.synced()
	select {
	case <-a.tell:
		t.Error("the box is told what it did itself")
	default:
	}
}

// What another host finds in the bucket: keys, JSON, and DEL for what is deleted.
func TestMetadata_bytes(t *testing.T) {
	h := newHub(t)
	a := newBox(t, h)
	a.put(link("default", provider))
	a.synced()
	kv := h.bucket()
	entry, err := kv.Get(t.Context(), "LINKDEF_2A00B4ABDFDE5BDE08B98825693D194EF466A85D21998AD256883DBBCD689098")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(entry.Value()), `{"actor_id":"`+actor+`","provider_id":"`+provider+`","link_name":"default","contract_id":"wasmcloud:keyvalue","values":{}}`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	a.delete(link("default", ""))
	a.synced()
	history, err := kv.History(t.Context(), entry.Key())
	if err != nil || len(history) != 1 || history[0].Operation() != jetstream.KeyValueDelete {
		t.Errorf("got %v, %v; want a DEL marker", history, err)
	}
}

// Other hosts write, delete and purge; what makes no sense is left out, and the
// rest is taken.
func TestMetadata_otherHosts(t *testing.T) {
	h := newHub(t)
	a := newBox(t, h)
	one, two := link("one", provider), link("two", provider)
	of := func(l lattice.Link) string { return string(newLink(l).value) }
	kv := h.bucket()
	h.raw(LinkKey(one), strings.Replace(of(one), `"values":{}`, `"values":null,"id":"x"`, 1))
	h.raw(LinkKey(two), of(two))
	h.raw(LinkKey(link("three", "")), of(two))
	h.raw("REFMAP_x", `{"oci_url":"x","public_key":"y"}`)
	h.raw("COMPONENT_x", `{"url":"x","links":[]}`)
	for i := range 20 {
		h.raw(fmt.Sprintf("LINKDEF_%d", i), "garbage")
	}
	a.has("one=" + provider + " two=" + provider)
	eventually(t, "records that do not read are not counted", func() bool { return a.Status().LeftOut == 21 })
	// The first in some sessions are told one by one, of which there was one.
	if n := strings.Count(a.log.String(), "left out"); n != loudRecords {
		t.Errorf("%d lines about records that are left out, want %d", n, loudRecords)
	}
	// A box that comes later finds the same.
	newBox(t, h).has("one=" + provider + " two=" + provider)
	// One that a host breaks stays as it was known.
	h.raw(LinkKey(one), "garbage")
	if err := kv.Purge(t.Context(), LinkKey(two)); err != nil {
		t.Fatal(err)
	}
	a.has("one=" + provider)
	if err := kv.Delete(t.Context(), LinkKey(one)); err != nil {
		t.Fatal(err)
	}
	a.has("")
	// What does not read gives way to what is put here.
	h.raw(LinkKey(one), "garbage")
	a.put(link("one", "a"))
	a.synced()
	newBox(t, h).has("one=a")
}

// A bucket that is there is used as it is.
func TestMetadata_bucketAsItIs(t *testing.T) {
	h := newHub(t)
	js, err := jetstream.New(h.connect(), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "LATTICEDATA_home", History: 7, Storage: jetstream.MemoryStorage})
	if err != nil {
		t.Fatal(err)
	}
	a := newBox(t, h)
	for i := range 10 {
		a.put(link("one", fmt.Sprint(i)))
		a.synced()
	}
	newBox(t, h).has("one=9")
	status, err := kv.Status(t.Context())
	if err != nil || status.History() != 7 {
		t.Errorf("history %v, %v", status.History(), err)
	}
}

// A box that has no hub keeps what it is told, over restarts, and brings it to a hub
// that it gets later.
func TestMetadata_withoutHub(t *testing.T) {
	h := newHub(t)
	dir := t.TempDir()
	a := startBox(t, nil, dir, nil)
	a.put(link("one", "a"))
	a.put(link("two", "a"))
	a.delete(link("two", ""))
	if err := a.PutClaims(Claims{Subject: actor, Revision: 2}); err != nil {
		t.Fatal(err)
	}
	a.stop()
	a = startBox(t, nil, dir, nil)
	if a.providers() != "one=a" || len(a.Claims()) != 1 {
		t.Fatalf("after a restart there is %q, %v", a.providers(), a.Claims())
	}
	a.stop()
	a = startBox(t, h.connect(), dir, nil)
	b := newBox(t, h)
	b.has("one=a")
	a.synced()
	if n := a.Status().Records; n != 2 {
		t.Errorf("%d records, want 2", n)
	}
}

// Both sides change links while a box is away, reboots without the hub, and comes back.
func TestMetadata_apart(t *testing.T) {
	h := newHub(t)
	dir := t.TempDir()
	a, b := startBox(t, h.connect(), dir, nil), newBox(t, h)
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		a.put(link(name, "0"))
	}
	b.has("a=0 b=0 c=0 d=0 e=0 f=0")
	a.line.set(false)
	a.put(link("a", "here"))
	a.put(link("b", "here"))
	a.delete(link("c", ""))
	a.delete(link("f", ""))
	a.put(link("g", "here"))
	a.stop()
	a = startBox(t, nil, dir, nil)
	if got, want := a.providers(), "a=here b=here d=0 e=0 g=here"; got != want {
		t.Fatalf("after a reboot without the hub: %s, want %s", got, want)
	}
	a.stop()
	b.put(link("b", "there"))
	b.put(link("d", "there"))
	b.delete(link("e", ""))
	b.put(link("f", "there"))
	b.put(link("h", "there"))
	b.synced()
	a = startBox(t, h.connect(), dir, nil)
	want := "a=here b=there d=there f=there g=here h=there"
	a.has(want)
	b.has(want)
	a.synced()
	got := a.Conflicts()
	if len(got) != 2 || got[0].Link.Name != "b" || got[0].Mine.Provider != "here" || got[0].Theirs.Provider != "there" || got[1].Link.Name != "f" || got[1].Mine != nil {
		t.Errorf("conflicts: %+v", got)
	}
	if n := strings.Count(a.log.String(), "a change of a link is lost"); n != 2 {
		t.Errorf("%d lines about lost changes, want 2", n)
	}
	// They are there until somebody decides, also after a reboot.
	a.stop()
	a = startBox(t, h.connect(), dir, nil)
	if again := a.Conflicts(); !reflect.DeepEqual(again, got) {
		t.Errorf("after a reboot: %+v", again)
	}
	a.put(link("b", "here"))                        // it was wanted
	if err := a.Settle(link("f", "")); err != nil { // it was not
		t.Fatal(err)
	}
	if again := a.Conflicts(); len(again) > 0 {
		t.Errorf("after a decision: %+v", again)
	}
	b.has("a=here b=here d=there f=there g=here h=there")
}

// A hub that lost its data, or is another one, gets what the boxes have. Only the mark
// of a deletion deletes.
func TestMetadata_hubLost(t *testing.T) {
	h := newHub(t)
	a, b := newBox(t, h), newBox(t, h)
	a.put(link("one", "a"))
	a.put(link("two", "a"))
	b.has("one=a two=a")
	b.line.set(false)
	b.delete(link("two", ""))
	a.line.set(false)
	eventually(t, "the box does not notice that the line is down", func() bool { return !a.Status().Synced })
	h.stop()
	h.opts.StoreDir = t.TempDir()
	h.start()
	for _, x := range []*box{a, b} {
		eventually(t, "the box has no connection", x.o.Conn.IsConnected)
	}
	a.line.set(true)
	a.synced()
	b.line.set(true)
	b.has("one=a")
	a.has("one=a")
	newBox(t, h).has("one=a")
}

// The bucket is deleted under boxes that follow it.
func TestMetadata_bucketDeleted(t *testing.T) {
	h := newHub(t)
	a := startBox(t, h.connect(), t.TempDir(), func(o *Options) { o.look = 50 * time.Millisecond })
	a.put(link("one", "a"))
	a.synced()
	js, err := jetstream.New(h.connect(), jetstream.WithDefaultTimeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteKeyValue(t.Context(), "LATTICEDATA_home"); err != nil {
		t.Fatal(err)
	}
	newBox(t, h).has("one=a")
}

// The hub goes away and comes back as it was, without a word from the link.
func TestMetadata_hubRestarts(t *testing.T) {
	h := newHub(t)
	a := startBox(t, h.connect(), t.TempDir(), func(o *Options) { o.look = 50 * time.Millisecond })
	b := startBox(t, h.connect(), t.TempDir(), func(o *Options) { o.look = 50 * time.Millisecond })
	a.put(link("one", "a"))
	b.has("one=a")
	for i := range 3 {
		h.stop()
		b.put(link("two", fmt.Sprint(i)))
		h.start()
		a.has(fmt.Sprintf("one=a two=%d", i))
	}
}

func TestMetadata_PutClaims_revision(t *testing.T) {
	h := newHub(t)
	a, b := newBox(t, h), newBox(t, h)
	rev := func(want int64) func() bool {
		return func() bool {
			return len(a.Claims()) == 1 && a.Claims()[0].Revision == want && len(b.Claims()) == 1 && b.Claims()[0].Revision == want
		}
	}
	put := func(x *box, c Claims) {
		t.Helper()
		if err := x.PutClaims(c); err != nil {
			t.Fatal(err)
		}
	}
	put(a, Claims{Subject: actor, Revision: 4})
	eventually(t, "not 4", rev(4))
	put(b, Claims{Subject: actor, Revision: 3})
	put(b, Claims{Subject: actor, Revision: 5})
	eventually(t, "not 5", rev(5))
	a.synced()
	a.line.set(false)
	put(a, Claims{Subject: actor, Revision: 7, Name: "a"})
	put(b, Claims{Subject: actor, Revision: 6, Name: "b"})
	b.synced()
	a.line.set(true)
	eventually(t, "not 7", rev(7))
}

func TestMetadata_limits(t *testing.T) {
	h := newHub(t)
	const most = 100_000
	small := func(o *Options) { o.maxBytes = most }
	a, b := startBox(t, h.connect(), t.TempDir(), small), startBox(t, h.connect(), t.TempDir(), small)
	large := link("large", "a")
	large.Values = map[string]string{"a": strings.Repeat("x", MaxRecordBytes)}
	if err := a.PutLink(large); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a large link: %v", err)
	}
	if err := a.PutLink(link("a.b", "a")); !errors.Is(err, ErrRecord) {
		t.Errorf("a link name with a dot: %v", err)
	}
	if err := a.PutLink(lattice.Link{}); !errors.Is(err, ErrRecord) {
		t.Errorf("a link without a provider: %v", err)
	}
	if err := a.PutClaims(Claims{Subject: account}); !errors.Is(err, ErrRecord) {
		t.Errorf("claims of an account: %v", err)
	}
	// The whole is bounded too, here and for what others put.
	large.Values["a"] = strings.Repeat("x", most/10)
	for i := range 9 {
		l := large
		l.Name = fmt.Sprint(i)
		a.put(l)
	}
	if err := a.PutLink(large); !errors.Is(err, ErrFull) {
		t.Errorf("more than there is room for: %v", err)
	}
	eventually(t, "the other box does not get them", func() bool { return len(b.Links()) == 9 })
	l := large
	h.raw(LinkKey(l), string(newLink(l).value))
	h.raw(LinkKey(link("small", "")), string(newLink(link("small", "a")).value))
	for _, x := range []*box{a, b} {
		eventually(t, "what has no room is not left out, or more than that", func() bool { return x.Status().LeftOut == 1 && len(x.Links()) == 10 })
	}
	a.delete(link("0", ""))
	b.put(link("1", "b"))
	eventually(t, "the boxes do not go on", func() bool { return len(a.Links()) == 9 && len(b.Links()) == 9 })
}

// Many change the same links at the same time; all end with the same.
func TestMetadata_converges(t *testing.T) {
	h := newHub(t)
	var boxes []*box
	for range 3 {
		boxes = append(boxes, newBox(t, h))
	}
	done := make(chan struct{})
	for n, b := range boxes {
		go func() {
			defer func() { done <- struct{}{} }()
			for i := range 40 {
				l := link(fmt.Sprint(i%5), fmt.Sprintf("%d-%d", n, i))
				var err error
				switch {
				case i%11 == 10:
					b.line.set(i%2 == 0)
				case i%7 == 6:
					err = b.DeleteLink(l)
				default:
					err = b.PutLink(l)
				}
				if err != nil {
					t.Error(err)
				}
			}
			b.line.set(true)
		}()
	}
	for range boxes {
		<-done
	}
	state := func(b *box) string {
		j, err := json.Marshal(b.Links())
		if err != nil {
			t.Fatal(err)
		}
		return string(j)
	}
	eventually(t, "the boxes do not agree", func() bool {
		for _, b := range boxes {
			if !b.Status().Synced || state(b) != state(boxes[0]) {
				return false
			}
		}
		return true
	})
	late := newBox(t, h)
	late.synced()
	if got, want := state(late), state(boxes[0]); got != want {
		t.Errorf("the bucket has %s, the boxes %s", got, want)
	}
}

// A record on the disk that does not read costs that record.
func TestNew_damagedCopy(t *testing.T) {
	dir := t.TempDir()
	a := startBox(t, nil, dir, nil)
	a.put(link("one", "a"))
	a.writing.Lock()
	turn := a.o.Store.Begin()
	for _, key := range []string{LinkKey(link("two", "")), conflictPrefix + LinkKey(link("one", "")), "x"} {
		if err := turn.Put(a.space, key, []byte(`{"now":{}}`)); err != nil {
			t.Fatal(err)
		}
	}
	if err := turn.Commit(); err != nil {
		t.Fatal(err)
	}
	a.writing.Unlock()
	a.stop()
	a = startBox(t, nil, dir, nil)
	if a.providers() != "one=a" || len(a.Conflicts()) > 0 {
		t.Errorf("there is %s, %v", a.providers(), a.Conflicts())
	}
	if n := strings.Count(a.log.String(), "does not read"); n != 3 {
		t.Errorf("%d lines about damage, want 3", n)
	}
}
