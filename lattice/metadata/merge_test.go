package metadata

import "testing"

// What becomes of a link, told by its provider: was is what both had, "" for nothing.
func TestEntry_merge(t *testing.T) {
	of := func(p string) record {
		if p == "" {
			return record{}
		}
		l := link("default", p)
		return newLink(l)
	}
	for _, test := range []struct {
		name, was string
		mine      []string // puts while apart, "" deletes
		theirs    string
		now       string
		pending   bool
		lost      bool
	}{
		{"nothing happened", "a", nil, "a", "a", false, false},
		{"theirs alone", "a", nil, "b", "b", false, false},
		{"deleted there", "a", nil, "", "", false, false},
		{"mine alone", "a", []string{"b"}, "a", "b", true, false},
		{"deleted here", "a", []string{""}, "a", "", true, false},
		{"new here", "", []string{"b"}, "", "b", true, false},
		{"new there", "", nil, "b", "b", false, false},
		{"both the same", "a", []string{"b"}, "b", "b", false, false},
		{"both deleted", "a", []string{""}, "", "", false, false},
		{"both, differently", "a", []string{"b"}, "c", "c", false, true},
		{"new on both sides", "", []string{"b"}, "c", "c", false, true},
		{"deleted there, changed here", "a", []string{"b"}, "", "", false, true},
		{"changed there, deleted here", "a", []string{""}, "c", "c", false, true},
		{"an own change that the hub has taken, before another", "a", []string{"b", "c"}, "b", "c", true, false},
		{"there and back here", "a", []string{"b", "a"}, "a", "a", false, false},
		{"back here, and the first has come to the hub", "a", []string{"b", "a"}, "b", "a", true, false},
		{"many, and the first is still over what there was", "a", []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}, "a", "10", true, false},
		{"many, and one of the last came to the hub", "a", []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}, "9", "10", true, false},
	} {
		e := entry{now: of(test.was)}
		for _, p := range test.mine {
			e = e.put(of(p))
		}
		now, lost := e.merge(of(test.theirs))
		if !now.now.equal(of(test.now)) || now.pending != test.pending || lost != test.lost {
			t.Errorf("%s: got %s, pending %t, lost %t", test.name, now.now.value, now.pending, lost)
		}
		if back, err := decodeEntry(LinkKey(link("default", "")), e.encode(), decode); e.encode() != nil && (err != nil || !back.same(e)) {
			t.Errorf("%s: from the disk came %s, %v", test.name, back.encode(), err)
		}
	}
}

// Claims are those of the higher revision, and nothing is ever lost by that.
func TestEntry_merge_claims(t *testing.T) {
	of := func(rev int64) record {
		if rev == 0 {
			return record{}
		}
		return newClaims(Claims{Subject: actor, Revision: rev})
	}
	for _, test := range []struct {
		was, mine, theirs, now int64
		pending                bool
	}{
		{0, 2, 0, 2, true},
		{0, 2, 1, 2, true},
		{0, 2, 3, 3, false},
		{1, 3, 2, 3, true},
		{1, 2, 2, 2, false},
		{1, 2, 0, 2, true}, // deleted there; the actor runs here
	} {
		e := entry{now: of(test.was)}.put(of(test.mine))
		now, lost := e.merge(of(test.theirs))
		if !now.now.equal(of(test.now)) || now.pending != test.pending || lost {
			t.Errorf("%+v: got %s, pending %t, lost %t", test, now.now.value, now.pending, lost)
		}
		if now.pending {
			if again, _ := now.merge(of(test.theirs)); !again.same(now) {
				t.Errorf("%+v: heard again, it is %s", test, again.encode())
			}
		}
	}
}
