package topic

import "strings"

// ValidSubject reports whether s is a subject that can be published to: tokens joined by ".", none of them empty, "*" or ">", and no space or control
// character in it. As in NATS, a "*" inside a longer token is an ordinary character.
func ValidSubject(s string) bool { return valid(s, false) }

// ValidFilter reports whether s is a subject filter: a subject in which a token may be "*", and the last one ">".
func ValidFilter(s string) bool { return valid(s, true) }

func valid(s string, wildcards bool) bool {
	if s == "" || len(s) > maxSubjectBytes {
		return false
	}
	start := 0 // of the token at hand
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			if s[i] <= ' ' || s[i] == 0x7f {
				return false
			}
			continue
		}
		switch s[start:i] {
		case "":
			return false
		case "*":
			if !wildcards {
				return false
			}
		case ">":
			if !wildcards || i < len(s) {
				return false
			}
		}
		start = i + 1
	}
	return true
}

// Match reports whether a valid subject filter matches a valid subject, as NATS does: "*" is one token, ">" one or more to the end. It allocates
// nothing. What it says of invalid ones has no meaning.
func Match(filter, subject string) bool {
	for {
		f, fRest, fMore := strings.Cut(filter, ".")
		if f == ">" && !fMore {
			return true
		}
		s, sRest, sMore := strings.Cut(subject, ".")
		if f != "*" && f != s || fMore != sMore {
			return false
		}
		if !fMore {
			return true
		}
		filter, subject = fRest, sRest
	}
}

// Overlap reports whether there is a subject that both valid subject filters match. It allocates nothing.
func Overlap(a, b string) bool {
	for {
		at, aRest, aMore := strings.Cut(a, ".")
		bt, bRest, bMore := strings.Cut(b, ".")
		if at == ">" && !aMore || bt == ">" && !bMore {
			return true
		}
		if at != bt && at != "*" && bt != "*" || aMore != bMore {
			return false
		}
		if !aMore {
			return true
		}
		a, b = aRest, bRest
	}
}

// Covers reports whether every subject that the valid subject filter narrow matches is also matched by the valid subject filter wide.
func Covers(wide, narrow string) bool {
	for {
		w, wRest, wMore := strings.Cut(wide, ".")
		if w == ">" && !wMore {
			return true
		}
		n, nRest, nMore := strings.Cut(narrow, ".")
		if n == ">" && !nMore || w != "*" && w != n || wMore != nMore {
			return false
		}
		if !wMore {
			return true
		}
		wide, narrow = wRest, nRest
	}
}

// Reserved reports whether a subject or subject filter is in the space of the machinery and must be in no stream: one that begins with "$", replies
// under _INBOX, the lattice under wasmbus, the uplink under edge.up; or a filter that covers all of these, as ">" does.
func Reserved(s string) bool {
	first, rest, more := strings.Cut(s, ".")
	switch first {
	case ">":
		return true
	case "*":
		return rest == ">"
	case "_INBOX", "wasmbus":
		return true
	case "edge":
		second, _, _ := strings.Cut(rest, ".")
		return more && (second == "up" || second == ">" || second == "*")
	}
	return strings.HasPrefix(first, "$") || strings.HasPrefix(first, "_INBOX")
}
