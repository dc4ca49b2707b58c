package nameform

import (
	"regexp"
	"strings"
	"testing"
)

func TestForm(t *testing.T) {
	form := regexp.MustCompile(Form(8).String())
	names := []string{"", "a", "A9_-", "12345678", "123456789", "ä", "a b", "a.b", "a\n", "a\x00", strings.Repeat("a", 8)}
	for c := range 256 {
		names = append(names, string([]byte{byte(c)}), "a"+string([]byte{byte(c)}))
	}
	for _, name := range names {
		if got, want := Form(8).MatchString(name), form.MatchString(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}
