package store

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"os"
	"strconv"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A store file is mapped into memory whole, so that it can not be larger than
// what there are addresses for. A 32-bit process has two or three GiB of them,
// in pieces, for everything; and while a file is compacted there are two.
const (
	maxFile32 = 512 << 20
	fileSlack = 64 << 20 // of a file, beyond twice what it may hold
)

// maxFile is the largest file of a process with so many bits to a word.
func maxFile(wordBits int) int64 {
	if wordBits == 32 {
		return maxFile32
	}
	return 1 << 46
}

// maxHeld is the largest Options.MaxBytes that makes sense there. bbolt's file
// grows to about twice what it holds, since a commit copies what it changes.
func maxHeld(wordBits int) int64 { return (maxFile(wordBits) - fileSlack) / 2 }

// fileBound is how large the file may become that holds so many bytes.
func fileBound(maxBytes int64, wordBits int) int64 {
	return min(2*min(maxBytes, maxHeld(wordBits))+fileSlack, maxFile(wordBits))
}

// mapSize is what bbolt maps for a file that may grow up to bound: below a GiB
// it doubles, from 32 KiB on.
func mapSize(bound int64) int64 {
	if bound > 1<<30 {
		return bound
	}
	return max(32<<10, int64(1)<<bits.Len64(uint64(bound-1)))
}

// clampInt makes n an int on a machine where it may not be one.
func clampInt(n int64) int { return int(min(n, math.MaxInt)) }

func boltOptions(o Options) *bolt.Options {
	bound := fileBound(o.MaxBytes, strconv.IntSize)
	return &bolt.Options{
		Timeout:        time.Second,
		NoFreelistSync: true, // a third fewer bytes a commit; the list is found again at open
		FreelistType:   bolt.FreelistMapType,
		PageSize:       pageSize,
		MaxSize:        clampInt(bound),
		// All that the file may need is taken at once: growing never waits for
		// readers, and never finds that there are no addresses left, after bbolt
		// has given up those it had.
		InitialMmapSize: clampInt(mapSize(bound)),
	}
}

// openBolt maps the file at path. Where there are fewer addresses than it may
// need, it takes what there is, and the file can not grow beyond them.
func openBolt(path string, o *bolt.Options) (*bolt.DB, error) {
	return tryMaps(path, o, bolt.Open)
}

func tryMaps(path string, o *bolt.Options, open func(string, os.FileMode, *bolt.Options) (*bolt.DB, error)) (*bolt.DB, error) {
	for {
		b, err := open(path, 0o600, o)
		if err == nil {
			b.AllocSize = growStep
			return b, nil
		}
		size, statErr := fileSize(path)
		if !errors.Is(err, syscall.ENOMEM) || statErr != nil {
			return nil, err
		}
		if o.InitialMmapSize/2 < clampInt(max(size+growStep, fileSlack)) {
			return nil, fmt.Errorf("%w: no addresses left to map its %d bytes: %w", ErrUnusable, size, err)
		}
		o.InitialMmapSize /= 2
		o.MaxSize = min(o.MaxSize, o.InitialMmapSize)
	}
}

// fits says whether the file at path can be mapped at all.
func fits(path string) error {
	size, err := fileSize(path)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return fitsIn(size, strconv.IntSize)
}

func fitsIn(size int64, wordBits int) error {
	if wordBits == 32 && size > 2*maxFile32 {
		return fmt.Errorf("%w: it has %d bytes, and a 32-bit program maps %d at most: edged store compact on a 64-bit machine may make it smaller", ErrUnusable, size, 2*maxFile32)
	}
	return nil
}
