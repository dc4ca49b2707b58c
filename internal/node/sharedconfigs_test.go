package node

import (
	"fmt"
	"reflect"
	"testing"
)

// A configuration that was put while a box was away is there when it is back, and so is
// what it had put without the hub; one that was deleted is gone. The lists that edged
// prints are enough for it.
func TestNode_configsOfTheLattice(t *testing.T) {
	leaf, _ := strictHub(t, map[string]string{"a": "plant", "b": "plant"})
	box := func(name string) *rig {
		return newBox(t, name, unsigned+fmt.Sprintf("[hub]\nurl = \"nats-leaf://%s:x@%s\"\n[lattice]\nname = \"plant\"\n", name, leaf))
	}
	a, b := box("a"), box("b")
	put := func(r *rig, name string, values map[string][]byte) {
		t.Helper()
		r.must(r.host().SetConfig(t.Context(), name, values))
	}
	has := func(r *rig, name string, want map[string][]byte) {
		t.Helper()
		r.eventually(fmt.Sprintf("%s is %q", name, want), func() bool { return reflect.DeepEqual(r.held().Config[name], want) })
	}
	told := func(r *rig, want map[string]map[string]string) {
		t.Helper()
		r.eventually(fmt.Sprintf("the hub has %v", want), func() bool {
			return reflect.DeepEqual(r.configs.All(), want) && reflect.DeepEqual(r.held().Told, want) && r.configs.Synced()
		})
	}
	one, two := map[string][]byte{"speed": []byte("1")}, map[string][]byte{"speed": []byte("2"), "way": {}}
	a.start()
	b.start()
	put(a, "pump", one)
	put(a, "gone", one)
	has(b, "pump", one)
	has(b, "gone", one)
	b.stop()
	put(a, "pump", two)
	put(a, "gone", nil)
	put(a, "new", one)
	put(a, "not/shared", one)
	put(a, "binary", map[string][]byte{"x": {0xff}})
	told(a, map[string]map[string]string{"pump": {"speed": "2", "way": ""}, "new": {"speed": "1"}})
	a.stop() // who comes back learns it from the hub
	b.start()
	has(b, "pump", two)
	has(b, "new", one)
	has(b, "gone", nil)
	if all := b.held().Config; len(all) != 2 {
		t.Errorf("it has %q", all)
	}
	put(b, "pump", one)
	put(b, "new", nil)
	told(b, map[string]map[string]string{"pump": {"speed": "1"}})
	a.start()
	has(a, "pump", one)
	has(a, "new", nil)
	if problems := a.Status().Problems; len(problems) > 0 {
		t.Errorf("problems %q", problems)
	}
}
