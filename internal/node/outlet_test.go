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

// What waits for one broker does not go to another one when a new version has the
// tables in another order.
func TestNode_publishesElsewhere_inAnotherOrder(t *testing.T) {
	there := newRig(t, unsigned+"[mqtt]\nlisten = \"127.0.0.1:0\"\n")
	there.probe("cloud", "1", kept("cloud", "")+pubsubLocal("one", `topic = "cloud/#"`)+kept("other", "")+pubsubLocal("one", `topic = "other/#"`), "one")
	there.start()
	addr := there.listener.Addr().String()
	to := func(url, topic string) string {
		return "[[capability]]\nname = \"pubsub.mqtt\"\n[[capability.config]]\nurl = \"tcp://" + url + "\"\npublish = \"" + topic + "\"\n"
	}
	here := newRig(t, unsigned)
	nobody := "127.0.0.1:1"
	here.probe("a", "1", told("one")+to(nobody, "cloud/#"), "one")
	here.start()
	here.tell("one", "!publish cloud/x first")
	here.tell("one", "!publish cloud/x second")
	here.eventually("both wait", func() bool { return here.stream("a-pubsub-mqtt-1-out").Messages == 2 })
	here.probe("a", "2", told("one")+to(addr, "other/#")+to(nobody, "cloud/#"), "one")
	here.reload()
	here.tell("one", "!publish other/x third")
	there.sees("cloud", "one", "third")
	if n := here.stream("a-pubsub-mqtt-2-out").Messages; n != 2 {
		t.Errorf("%d messages wait for the other broker, want 2", n)
	}
	here.probe("a", "3", told("one")+to(nobody, "other/#")+to(addr, "cloud/#"), "one")
	here.reload()
	there.sees("cloud", "one", "third", "first", "second")
	here.probe("a", "4", told("one")+to(nobody, "none/#"), "one")
	here.stop()
	here.start()
	here.tell("one", "!publish none/x fourth")
	here.eventually("it waits", func() bool { return here.stream("a-pubsub-mqtt-1-out").Messages == 1 })
	here.probe("a", "5", told("one")+to(addr, "cloud/#"), "one")
	here.reload()
	letters := here.letters()
	if len(letters) != 1 || letters[0].Subject != "none.x" || letters[0].Subscription != "a-pubsub-mqtt-1-out.broker" {
		t.Errorf("dead letters %+v", letters)
	}
}
