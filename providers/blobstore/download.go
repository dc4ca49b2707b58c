package blobstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/edged-io/edged/lattice"
	"github.com/edged-io/edged/providers"
	"github.com/edged-io/edged/sdk/go/msgpack"
	"github.com/edged-io/edged/store"
)

// A part that an actor fails at is sent again after growing pauses, and after so many
// attempts the download is given up.
const (
	maxAttempts = 10
	firstPause  = 100 * time.Millisecond
	lastPause   = 30 * time.Second
)

// downloadID names a download.
type downloadID struct{ space, key string }

// download stages the rest of an object for the actor that asked for it. It begins when
// the turn is committed, so that the actor has its own changes by then.
func (c *call) download(d download) error {
	p := c.p
	id := downloadID{c.bucket.space(), keyDownload + newName()}
	p.mu.Lock()
	n, own := len(p.downloads), 0
	for _, actor := range p.downloads {
		if actor == d.actor {
			own++
		}
	}
	ok := n < MaxDownloads && own < MaxDownloadsEach
	if ok {
		p.downloads[id] = d.actor
	}
	p.mu.Unlock()
	if !ok {
		return because(providers.ErrUnavailable, "%d downloads are under way, %d of this actor: ask for ranges of at most %d bytes", n, own, ChunkBytes)
	}
	c.turn.AfterEnd(func(committed bool) {
		if committed {
			p.queue(id, d.actor)
		} else {
			p.forget(id)
		}
	})
	return c.put(id.key, d.encode())
}

// queue lets Run take up a download.
func (p *Provider) queue(id downloadID, actor string) {
	p.mu.Lock()
	p.downloads[id] = actor
	p.queued = append(p.queued, id)
	p.mu.Unlock()
	p.notify()
}

func (p *Provider) forget(id downloadID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.downloads, id)
}

// deliver sends the parts of a download, one after the other, until it ends.
func (p *Provider) deliver(ctx context.Context, id downloadID) {
	defer p.forget(id)
	for failed, waited := 0, 0; ; {
		more, err := p.deliverOnce(ctx, id)
		switch {
		case ctx.Err() != nil:
			return // it goes on with the next start
		case err == nil && !more:
			return
		case err == nil:
			failed, waited = 0, 0
			continue
		case errors.Is(err, errNotNow): // nobody was called
			waited++
		default:
			failed++
			if failed < maxAttempts && !unhandled(err) {
				p.o.Failed(err, "the part is sent again")
				break
			}
			p.o.Failed(err, "the download is given up")
			p.log.Warn("a download is given up", "attempts", failed, "err", err)
			if err := p.drop(ctx, id); err == nil {
				return
			}
		}
		pause := min(firstPause<<min(failed+waited, 16), lastPause)
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			return
		}
	}
}

// unhandled says whether an actor has no such operation, in the words of its kit.
func unhandled(err error) bool {
	return strings.Contains(strings.ToLower(err.Error()), "method not handled")
}

// errNotNow: the actor is not here, or not linked. It may be again.
var errNotNow = errors.New("the actor is not linked to the blobstore, or does not run")

// deliverOnce sends one part, in a turn in which the actor's changes and the progress
// are committed together. It says whether there is more to come.
func (p *Provider) deliverOnce(ctx context.Context, id downloadID) (more bool, err error) {
	err = p.db.Do(ctx, func(ctx context.Context, t *store.Turn) error {
		more = false
		v, ok, err := t.Get(id.space, id.key)
		if err != nil || !ok {
			return err
		}
		d, err := decodeDownload(v)
		if err != nil {
			return errors.Join(err, p.change(t, id.space, id.key, nil))
		}
		if p.link(linkID{d.actor, d.link}) == nil {
			return errNotNow
		}
		n := min(d.end-d.next, ChunkBytes)
		part, err := p.files.read(d.file, d.next, int(n))
		if err != nil {
			return fmt.Errorf("object %q: %w", d.object, err)
		}
		r := newReply(d.form, len(part)+512)
		r.chunk(chunk{d.object, d.container, part, uint64(d.next), d.next+n == d.end})
		answer, err := p.o.Call(ctx, lattice.Invocation{
			Target: lattice.Entity{Key: d.actor}, Contract: Contract, Operation: ReceiveChunk, Payload: r.b,
		})
		if errors.Is(err, lattice.ErrNoEntity) {
			return errNotNow
		}
		if err != nil {
			return err
		}
		cancel, err := readReceived(answer)
		if err != nil {
			return fmt.Errorf("answer of the actor: %w", err)
		}
		d.next, d.since = d.next+n, p.db.Elapsed()
		if more = d.next < d.end && !cancel; !more {
			return p.change(t, id.space, id.key, nil)
		}
		return p.change(t, id.space, id.key, d.encode())
	})
	return more, err
}

// readReceived reads what an actor answers to a part: nothing means to go on.
func readReceived(answer []byte) (cancel bool, err error) {
	payload, _, err := open(answer, plain, true)
	if err != nil || msgpack.IsNothing(payload) {
		return false, err
	}
	d := providers.Decoder(payload)
	providers.Struct(d, receivedMembers, func(name string) {
		if name == "cancelDownload" {
			cancel = d.Bool()
		} else {
			d.Skip()
		}
	})
	return cancel, d.Done()
}

// drop gives up a download.
func (p *Provider) drop(ctx context.Context, id downloadID) error {
	return p.db.Do(ctx, func(_ context.Context, t *store.Turn) error { return p.change(t, id.space, id.key, nil) })
}
