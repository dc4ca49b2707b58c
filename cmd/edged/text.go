package main

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// firstLine is what fits into a column.
func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	if len(s) > 80 {
		s = strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

// printable keeps what strangers sent from moving the cursor.
func printable(b []byte) string {
	if !utf8.Valid(b) {
		return "(not text; --json has it as base64)"
	}
	return strings.Map(func(r rune) rune {
		if r == '\r' {
			return -1 // headers end their lines with it
		}
		if r != '\n' && r != '\t' && !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, string(b))
}

// oneLine is printable for a cell of a table.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
