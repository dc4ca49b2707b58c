package config

import (
	"bytes"
	"testing"
	"testing/fstest"
)

// checkFaults checks that each fault is at a line of the file, and that there is a result if there is none.
func checkFaults(t *testing.T, faults Faults, result bool, data []byte) {
	t.Helper()
	if len(faults) == 0 && !result {
		t.Fatal("neither result nor fault")
	}
	lines := bytes.Count(data, []byte("\n")) + 1
	for _, f := range faults {
		if f.Line < 1 || f.Line > lines || f.Reason == "" || f.File == "" {
			t.Fatalf("fault %+v", f)
		}
	}
}

func FuzzDevice(f *testing.F) {
	f.Add(sample)
	f.Add([]byte("[device]\nid='a'\nlabels={a.b=[{}],'c'=1}\n[[hub]]\n[hub.x]\n"))
	f.Add([]byte("device=1979-05-27\nhub={url='nats-leaf://h'}\nstore.max_bytes='1KiB'"))
	f.Add([]byte("[device]\nid='a'\n[nats]\nlisten='[::1]:1'\n[trust]\nissuers=['A']\n[hub]\nurl='wss://h/x'\nshare=['a.>']\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		d, faults := decodeDevice(dir+"/edged.toml", data)
		checkFaults(t, faults, d != nil, data)
		if len(faults) == 0 && !nameForm.MatchString(d.Device.ID) {
			t.Fatalf("id %q", d.Device.ID)
		}
	})
}

func FuzzManifest(f *testing.F) {
	page := example(f, "manifest.md")
	f.Add(page)
	for _, block := range bytes.Split(page, []byte("\n\n")) {
		f.Add(append([]byte("specversion='0.2'\nname='a'\nversion='1'\n[[actor]]\nname='thermostat'\nmodule='thermostat.wasm'\n"), block...))
	}
	f.Add([]byte("[[link]]\nactor='x'\ncontract='edged:gpio'\nprovider='gpio'\nvalues={chip='a',line='1',direction='in'}\n"))
	f.Add([]byte("[[capability]]\nname='pubsub.local'\nconfig=[{topic='a/#'},{a.b=1}]\n[[stream]]\nsubjects=['>',1]\n"))
	f.Add([]byte("specversion='0.2'\nname='a'\nversion='1'\n[[actor]]\nname='x'\nmodule='thermostat.wasm'\n[[capability]]\nname='pubsub.mqtt'\nconfig=[{url='mqtts://h',ca='/c',will={topic='w'},queue='u/+',publish='p/#'}]\n"))
	f.Add([]byte("specversion='0.2'\nname='a'\nversion='1'\n[[actor]]\nname='x'\nmodule='thermostat.wasm'\n[[capability]]\nname='pubsub.nats'\nconfig=[{url='nats://h',publish='p'},{url='ws://h',topic='a.>',qos=0}]\n"))
	f.Add([]byte("specversion='0.2'\nname='a'\nversion='1'\n[[actor]]\nname='x'\nmodule='thermostat.wasm'\n[[capability]]\nname='httpserver'\nconfig=[{listen='[::1]:0',hosts=['a.b'],routes=['GET /{x}/y','/'],tls={cert='/c',key='/k'},cors={}},{port=1,config_json='{}'}]\n"))
	files := fstest.MapFS{"thermostat.wasm": {}}
	f.Fuzz(func(t *testing.T, data []byte) {
		a, faults := decodeApp("app", data, files)
		checkFaults(t, faults, a != nil, data)
		if len(faults) > 0 {
			return
		}
		for _, s := range a.sources() {
			if len(Feeds([]*App{a}, s)) == 0 {
				t.Fatalf("%+v is fed by nothing", s)
			}
		}
		if f := CheckApps([]*App{a}); f != nil {
			t.Fatalf("one app is at odds with itself: %v", f)
		}
	})
}
