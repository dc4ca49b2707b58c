//go:build !linux

package runtime

func newRegion() region { return &heapRegion{} }
