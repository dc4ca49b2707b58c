package node

import "testing"

// What an actor publishes to a broker elsewhere gets there, what was published
// while it was away too; everything else stays on the box.
func TestNode_publishesElsewhere(t *testing.T) {
	there := newRig(t, unsigned+"[mqtt]\nlisten = \"127.0.0.1:0\"\n")
	there.probe("cloud", "1", "[[stream]]\nname = \"cloud\"\nsubjects = [\"cloud.>\"]\n[[capability]]\nname = \"pubsub.local\"\n[[capability.config]]\ntopic = \"cloud/#\"\n", "one")
	there.start()
	here := newRig(t, unsigned)
	here.probe("a", "1", "[[stream]]\nname = \"here\"\nsubjects = [\"here.>\", \"cloud.>\"]\n"+
		"[[capability]]\nname = \"pubsub.local\"\n[[capability.config]]\ntopic = \"tell\"\n"+
		"[[capability]]\nname = \"pubsub.mqtt\"\n[[capability.config]]\nurl = \"tcp://"+there.listener.Addr().String()+"\"\nqos = 2\npublish = \"cloud/#\"\n", "one")
	here.start()
	here.tell("tell", "!publish cloud/x one")
	here.tell("tell", "!publish here/x two")
	there.sees("cloud", "one", "one")
	here.eventually("the box keeps the other one", func() bool { return here.stream("here").Last == 1 })
	if got := here.stream("here"); got.Last != 1 {
		t.Errorf("the box keeps %d messages, want 1", got.Last)
	}
	addr := there.listener.Addr().String()
	there.stop()
	here.tell("tell", "!publish cloud/y three")
	there.write("edged.toml", "[device]\nid = \"press-7\"\n[nats]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"\"\n"+unsigned+"[mqtt]\nlisten = \""+addr+"\"\n")
	there.start()
	there.sees("cloud", "one", "one", "three")
}

// What a broker elsewhere sends waits on the box until an actor asks, by the queue
// as the manifest has it.
func TestNode_pullsFromElsewhere(t *testing.T) {
	there := newRig(t, unsigned+"[mqtt]\nlisten = \"127.0.0.1:0\"\n")
	there.start()
	here := newRig(t, unsigned)
	here.probe("a", "1", told("one")+"[[capability]]\nname = \"pubsub.mqtt\"\n[[capability.config]]\nurl = \"tcp://"+there.listener.Addr().String()+"\"\n"+
		"qos = 1\nqueue = \"user/+\"\ndelivery = \"pull\"\n", "one")
	here.start()
	inbox := here.apps["a"].config.MQTT[0].Name
	here.eventually("the message is here", func() bool {
		there.tell("user.ann", "hello")
		return here.stream(inbox).Messages > 0
	})
	here.tell("one", "!receive user/+ 20000")
	here.sees("a", "one", "received hello")
}
