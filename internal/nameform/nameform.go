// Package nameform has the form that names of devices, apps and streams share:
// letters, digits, _ and -, so that they can be parts of subjects and of file
// names.
package nameform

import "fmt"

// A Form is how many characters a name may have; it has at least one. It stands
// for a regular expression, which would count, and with that take 100 KiB and
// part of a millisecond at each start.
type Form int

// MatchString says whether name has the form.
func (f Form) MatchString(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return 0 < len(name) && len(name) <= int(f)
}

// String is the form as an error has it.
func (f Form) String() string { return fmt.Sprintf("^[A-Za-z0-9_-]{1,%d}$", int(f)) }
