//go:build !foreign

package actors

func prepare(string) error { return nil }
