package child

import "time"

// Hasten shortens what tests would wait for: pauses before restarts, how long a
// provider may take to end, and how often it is asked how it is.
func (m *Manager) Hasten() {
	m.t.poll, m.t.every, m.t.unwell, m.t.remote, m.t.away = 10*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond, 20*time.Millisecond
	m.t.least, m.t.most, m.t.tries = time.Millisecond, 10*time.Millisecond, 4
}

// HastenEnd has a provider that does not end when it is asked to killed soon.
func (m *Manager) HastenEnd() { m.t.ask, m.t.term = 50*time.Millisecond, 50*time.Millisecond }

// SetPatience says how long a provider may be silent after its start.
func (m *Manager) SetPatience(d time.Duration) { m.t.first = d }

// Runs says whether Run does.
func (m *Manager) Runs() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ctx != nil
}

// Landlock is the version of what the kernel has of it, 0 for nothing.
func Landlock() int { return landlockVersion() }
