package httpclient

import "context"

const (
	unit = 1 << 20
	// maxUnderWay is how many units requests and answers of all actors may have in
	// memory together. One that is larger has all of it.
	maxUnderWay = 32
)

// budget are places in memory, a unit each.
type budget struct {
	places chan struct{}
	// taking is held while places are taken: two who each hold half of what they need
	// would wait for each other.
	taking chan struct{}
}

func newBudget() budget {
	return budget{places: make(chan struct{}, maxUnderWay), taking: make(chan struct{}, 1)}
}

// take waits for room for so many bytes, until ctx ends. What it takes is given back
// with release.
func (b budget) take(ctx context.Context, bytes int64) (release func(), err error) {
	n := int(min((bytes+unit-1)/unit, maxUnderWay))
	taken := 0
	release = func() {
		for ; taken > 0; taken-- {
			<-b.places
		}
	}
	select {
	case b.taking <- struct{}{}:
		defer func() { <-b.taking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for ; taken < n; taken++ {
		select {
		case b.places <- struct{}{}:
		case <-ctx.Done():
			release()
			return nil, ctx.Err()
		}
	}
	return release, nil
}
