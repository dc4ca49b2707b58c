package providers_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/store"
)

func TestFail(t *testing.T) {
	given := providers.Fail("pubsub", providers.ErrNotPermitted, errors.New("topic x"))
	for _, test := range []struct {
		kind, cause, want error
		text              string
	}{
		{providers.ErrNotPermitted, errors.New("topic x"), providers.ErrNotPermitted, "pubsub: not permitted: topic x"},
		{nil, fmt.Errorf("to a: %w", store.ErrTooLarge), providers.ErrTooLarge, "pubsub: payload too large: to a: too large"},
		{nil, store.ErrNoSubscription, providers.ErrNoTopic, "pubsub: no such topic: no such subscription"},
		{nil, context.DeadlineExceeded, providers.ErrTimedOut, "pubsub: timed out: context deadline exceeded"},
		{nil, store.ErrFull, providers.ErrUnavailable, "pubsub: unavailable: full"},
		{nil, given, providers.ErrNotPermitted, "pubsub: not permitted: topic x"},
	} {
		got := providers.Fail("pubsub", test.kind, test.cause)
		if got.Error() != test.text || !errors.Is(got, test.want) {
			t.Errorf("got %q, want %q, a case of %q", got, test.text, test.want)
		}
		if !errors.Is(got, test.cause) && got != given {
			t.Errorf("%q has lost its cause", got)
		}
	}
}
