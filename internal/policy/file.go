package policy

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/edged-io/edged/internal/atomicfile"
)

const fileFormat = 1

// kept is the file.
type kept struct {
	Format  int       `json:"format"`
	Answers []*answer `json:"answers"` // about starts, in the order in which they came
}

func (p *Policy) load() error {
	data, err := os.ReadFile(p.o.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(data, &k)
	}
	if err != nil || k.Format != fileFormat {
		aside := p.o.File + ".damaged"
		p.log.Error("answers of the policy service can not be read; they are asked for again", "file", aside, "format", k.Format, "err", err)
		return errors.Join(os.RemoveAll(aside), os.Rename(p.o.File, aside))
	}
	for _, a := range k.Answers {
		start := a != nil && (strings.HasPrefix(a.Key, string(StartActor)+" ") || strings.HasPrefix(a.Key, string(StartProvider)+" "))
		if !start || a.RequestID == "" || p.answers[a.Key] != nil || len(p.answers) == maxKept {
			continue
		}
		a.Start, a.Message = true, clip(a.Message)
		p.answers[a.Key], p.ids[a.RequestID] = a, a.Key
		p.order = append(p.order, a.Key)
	}
	return nil
}

// save writes the answers about starts. What can not be written is asked for again after the next start.
func (p *Policy) save() {
	p.saving.Lock() // so that no older state overtakes a newer one
	defer p.saving.Unlock()
	k := kept{Format: fileFormat, Answers: []*answer{}}
	p.mu.Lock()
	for _, key := range p.order {
		if a := p.answers[key]; a.Start {
			k.Answers = append(k.Answers, a)
		}
	}
	p.mu.Unlock()
	data, err := json.MarshalIndent(k, "", "\t")
	if err == nil {
		err = atomicfile.WriteFile(p.o.File, append(data, '\n'), 0o600)
	}
	if err != nil {
		p.log.Error("answers of the policy service are not kept", "file", p.o.File, "err", err)
	}
}
