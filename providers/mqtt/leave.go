package mqtt

import (
	"context"
	"fmt"

	"github.com/edged-io/edged/store"
)

// Leave ends the session that a Client with these options had: the broker forgets its subscriptions and what it kept for the box, and so does the store.
// Nobody may be connected with the client id. When the broker can not be reached the error says so, and nothing is forgotten.
func Leave(ctx context.Context, o ClientOptions) error {
	o.Clean, o.Filters, o.Outbox, o.Will = true, nil, nil, nil
	c, err := NewClient(o)
	if err != nil {
		return err
	}
	l := newLink(c)
	defer close(l.ended)
	if _, err := l.connect(ctx); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	l.paho.Disconnect(quiesceMillis)
	_ = l.conn.Close()
	l.conn.wait()
	if o.Store == nil {
		return nil
	}
	return forgetSession(ctx, &o)
}

// forgetSession removes what the store has of a session. What it recognises repeats by goes first: without the record nobody would find it.
func forgetSession(ctx context.Context, o *ClientOptions) error {
	if err := clientRepeats(o.URL, o.ClientID, epoch{}).forget(ctx, o.Store); err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	err := o.Store.Do(ctx, func(_ context.Context, t *store.Turn) error { return t.Delete(spaceSessions, recordKey(o)) })
	if err != nil {
		return fmt.Errorf("leave: %w", err)
	}
	return nil
}
