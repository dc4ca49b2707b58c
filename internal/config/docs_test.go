package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const docs = "../../docs/"

// section returns what stands in a page under a heading, up to the next heading of any level.
func section(t *testing.T, page, heading string) string {
	t.Helper()
	text, err := os.ReadFile(docs + page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", page, heading)
	}
	rest, _, _ = strings.Cut(rest, "\n#")
	return rest
}

// documented returns the rows of a section's table by key, other columns joined.
func documented(text string) map[string]string {
	rows := make(map[string]string)
	for line := range strings.Lines(text) {
		keys, rest, ok := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if !ok || !strings.HasPrefix(keys, "`") {
			continue
		}
		for key := range strings.SplitSeq(keys, ", ") {
			rows[strings.Trim(key, "`")] = rest
		}
	}
	return rows
}

// checkPage compares the keys of a struct, with defaults, with a section.
func checkPage(t *testing.T, page, heading string, v any) {
	t.Helper()
	rows := documented(section(t, page, heading))
	known := make(map[string]bool)
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			key := prefix + f.Tag.Get("toml")
			if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct && f.Type.Elem() != tableType || heading == "## The app" && f.Type == refusedType {
				continue // has a section of its own
			}
			known[key] = true
			row, ok := rows[key]
			if !ok {
				t.Errorf("%s, %s: %s is missing", page, heading, key)
				continue
			}
			def := f.Tag.Get("default")
			switch {
			case f.Tag.Get("required") != "" && !strings.Contains(row, "required"):
				t.Errorf("%s, %s: %s is required", page, heading, key)
			case f.Type == refusedType && !strings.Contains(row, "ot enforced by this version"):
				t.Errorf("%s, %s: %s is not enforced", page, heading, key)
			case def != "" && !strings.Contains(row, "| `"+strings.ReplaceAll(def, ",", "`, `")+"` |"):
				t.Errorf("%s, %s: default of %s is %q, documented is %q", page, heading, key, def, row)
			}
			for _, tag := range []string{"min", "max", "items"} {
				if limit := f.Tag.Get(tag); len(limit) > 1 && limit != "1000000000000" && !strings.Contains(row, limit) {
					t.Errorf("%s, %s: %s %s of %s is not in %q", page, heading, tag, limit, key, row)
				}
			}
			for value := range strings.SplitSeq(f.Tag.Get("oneof"), "|") {
				if !strings.Contains(row, value) {
					t.Errorf("%s, %s: value %s of %s is not in %q", page, heading, value, key, row)
				}
			}
			if f.Type.Kind() == reflect.Struct && f.Type != refusedType && f.Type != tableType {
				walk(key+".", f.Type)
			}
			if f.Type.Kind() == reflect.Pointer {
				walk(key+".", f.Type.Elem())
			}
		}
	}
	walk("", reflect.TypeOf(v))
	for key := range rows {
		if !known[key] {
			t.Errorf("%s, %s: %s does not exist", page, heading, key)
		}
	}
}

func TestDocs_deviceFile(t *testing.T) {
	typ := reflect.TypeFor[Device]()
	for i := range typ.NumField() {
		f := typ.Field(i).Type
		if f.Kind() == reflect.Pointer {
			f = f.Elem()
		}
		checkPage(t, "device-file.md", "## `["+typ.Field(i).Tag.Get("toml")+"]`", reflect.Zero(f).Interface())
	}
	checkPage(t, "device-file.md", "### `[[registry.login]]`", RegistryLogin{})
	checkPage(t, "policy.md", "## Rules", ruleTable{})
}

func TestDocs_manifest(t *testing.T) {
	for heading, v := range map[string]any{
		"## The app": manifest{}, "## `[[actor]]`": actorTable{}, "## `[[stream]]`": streamTable{}, "## `[[capability]]`": capabilityTable{}, "## `[[link]]`": linkTable{}, "## `[[provider]]`": providerTable{},
		"## `[[subscription]]`": subscriptionTable{}, "### `pubsub.mqtt`": mqttConfig{}, "### `pubsub.nats`": natsConfig{}, "### `pubsub.local`": localConfig{}, "### `keyvalue`": keyValueConfig{}, "### `messaging`": messagingConfig{}, "### `blobstore`": blobStoreConfig{},
		"### `gpio`": gpioConfig{}, "### `httpserver`": httpServerConfig{}, "### `httpclient`": httpClientConfig{}, "### `logging`, `numbergen`": noConfig{},
	} {
		checkPage(t, "manifest.md", heading, v)
	}
	for name := range builtins {
		if !strings.Contains(builtinNames, name) || !strings.Contains(section(t, "manifest.md", "## `[[capability]]`"), "`"+name+"`") {
			t.Errorf("capability %s is not listed", name)
		}
	}
}

// TestDocs_capabilityValues checks that the page of each capability tells the keys of its configuration, or leads to where they are.
func TestDocs_capabilityValues(t *testing.T) {
	for name, c := range map[string]struct {
		page string
		v    any
	}{
		"keyvalue": {"keyvalue", keyValueConfig{}}, "blobstore": {"blobstore", blobStoreConfig{}}, "gpio": {"gpio", gpioConfig{}}, "messaging": {"messaging", messagingConfig{}},
		"pubsub.mqtt": {"mqtt", mqttConfig{}}, "pubsub.nats": {"nats", natsConfig{}}, "pubsub.local": {"pubsub", localConfig{}},
		"httpserver": {"httpserver", httpServerConfig{}}, "httpclient": {"httpclient", httpClientConfig{}}, "logging": {"logging", noConfig{}}, "numbergen": {"numbergen", noConfig{}},
	} {
		text, err := os.ReadFile(docs + "capabilities/" + c.page + ".md")
		if err != nil {
			t.Error(err)
			continue
		}
		if shown := regexp.MustCompile(`name +?= "` + name + `"`); !shown.Match(text) && !strings.Contains(string(text), "capability [`"+name+"`]") {
			t.Errorf("%s.md shows no capability %s", c.page, name)
		}
		if strings.Contains(string(text), "../manifest.md#"+strings.ReplaceAll(name, ".", "")+")") {
			continue // there another test looks at each key
		}
		typ := reflect.TypeOf(c.v)
		for i := range typ.NumField() {
			if key := typ.Field(i).Tag.Get("toml"); !regexp.MustCompile(`\b` + key + `\b`).Match(text) {
				t.Errorf("%s.md tells neither %s nor where it is told", c.page, key)
			}
		}
	}
	if len(builtins) != 11 {
		t.Errorf("%d capabilities, and 11 are looked at", len(builtins))
	}
}

// TestDocs_limits holds the table of limits against the manifest's keys.
func TestDocs_limits(t *testing.T) {
	text := section(t, "limits.md", "## Of an actor")
	rows := documented(text)
	typ := reflect.TypeFor[limitsTable]()
	for i := range typ.NumField() {
		key, def := typ.Field(i).Tag.Get("toml"), typ.Field(i).Tag.Get("default")
		if row, ok := rows[key]; ok {
			if !strings.HasPrefix(row, "`"+def+"` | ") {
				t.Errorf("limits.md: default of %s is %q, documented is %q", key, def, row)
			}
		} else if !strings.Contains(text, "`"+key+"`, by default `"+def+"`") {
			t.Errorf("limits.md: %s is missing", key)
		}
	}
	rows, typ = documented(section(t, "limits.md", "## Of all actors together")), reflect.TypeFor[Limits]()
	for i := range typ.NumField() {
		key, def := typ.Field(i).Tag.Get("toml"), typ.Field(i).Tag.Get("default")
		if row := rows[key]; key != "max_message" && !strings.HasPrefix(row, "`"+def+"`") {
			t.Errorf("limits.md: default of the box's %s is %q, documented is %q", key, def, row)
		}
	}
}

// example returns the first TOML block of a page.
func example(t testing.TB, page string) []byte {
	t.Helper()
	text, err := os.ReadFile(docs + page)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("```toml\n"))
	block, _, ok := bytes.Cut(rest, []byte("```"))
	if !ok {
		t.Fatalf("%s has no example", page)
	}
	return block
}

func TestDocs_examplesLoad(t *testing.T) {
	dir := t.TempDir()
	for name, data := range map[string][]byte{"edged.toml": example(t, "device-file.md"), "app.toml": example(t, "manifest.md"), "thermostat.wasm": nil} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadDevice(filepath.Join(dir, "edged.toml")); err != nil {
		t.Error(err)
	}
	if _, err := LoadApp(dir); err != nil {
		t.Error(err)
	}
}

// TestSample_complete checks that the sample shows every key of the device file that has a section in it.
func TestSample_complete(t *testing.T) {
	typ := reflect.TypeFor[Device]()
	for i := range typ.NumField() {
		name := typ.Field(i).Tag.Get("toml")
		_, rest, ok := strings.Cut(string(sample), "["+name+"]")
		if !ok {
			t.Errorf("the sample has no [%s]", name)
			continue
		}
		rest, _, _ = strings.Cut(rest, "\n[")
		f := typ.Field(i).Type
		if f.Kind() == reflect.Pointer {
			f = f.Elem()
		}
		for j := range f.NumField() {
			key := f.Field(j).Tag.Get("toml")
			if key != "insecure" && !slices.ContainsFunc(strings.Split(rest, "\n"), func(l string) bool { return strings.HasPrefix(strings.TrimPrefix(l, "# "), key+" = ") }) {
				t.Errorf("the sample does not show %s.%s", name, key)
			}
		}
	}
}

func TestExamples_load(t *testing.T) {
	manifests, err := filepath.Glob("../../examples/*/app.toml")
	if err != nil || len(manifests) < 2 {
		t.Fatalf("manifests %v, %v", manifests, err)
	}
	for _, name := range manifests {
		dir := t.TempDir()
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files := map[string][]byte{"app.toml": data}
		for _, m := range regexp.MustCompile(`(?m)^module\s*=\s*"([^"]+)"`).FindAllSubmatch(data, -1) {
			files[string(m[1])] = nil
		}
		for file, data := range files {
			if err := os.WriteFile(filepath.Join(dir, file), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := LoadApp(dir); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
