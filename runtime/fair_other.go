//go:build !linux

package runtime

func osYield() {}
