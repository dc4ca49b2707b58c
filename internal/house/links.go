package house

import (
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"unicode"
)

var (
	inlineLink    = regexp.MustCompile(`\]\(([^()\s]+)(?:\s+"[^"]*")?\)`)
	referenceLink = regexp.MustCompile(`^\s{0,3}\[[^\]]+\]:\s+(\S+)`)
	heading       = regexp.MustCompile(`^#{1,6}\s+(.*?)\s*#*\s*$`)
	codeSpan      = regexp.MustCompile("`[^`]*`")
	markup        = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
)

// links holds that what documents point to inside the tree is there: files, and headings in them.
func (c *checker) links() error {
	anchors := map[string]map[string]bool{}
	for _, doc := range c.docs {
		lines, err := c.prose(doc)
		if err != nil {
			return err
		}
		for n, line := range lines {
			line = codeSpan.ReplaceAllString(line, "")
			for _, m := range append(inlineLink.FindAllStringSubmatch(line, -1), referenceLink.FindAllStringSubmatch(line, -1)...) {
				if err := c.link(doc, n+1, m[1], anchors); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// link checks one target as written in line n of doc.
func (c *checker) link(doc string, n int, target string, anchors map[string]map[string]bool) error {
	u, err := url.Parse(target)
	if err != nil {
		c.fault(doc, n, RuleLink, "%s is not a link", target)
		return nil
	}
	if u.Scheme != "" || u.Host != "" {
		return nil
	}
	file := doc
	if u.Path != "" {
		file = path.Join(path.Dir(doc), u.Path)
		if _, err := os.Stat(filepath.Join(c.root, filepath.FromSlash(file))); err != nil {
			c.fault(doc, n, RuleLink, "%s is not there", target)
			return nil
		}
	}
	if u.Fragment == "" || !strings.HasSuffix(file, ".md") {
		return nil
	}
	if anchors[file] == nil {
		if anchors[file], err = c.anchors(file); err != nil {
			return err
		}
	}
	if !anchors[file][u.Fragment] {
		c.fault(doc, n, RuleLink, "%s: no heading of that name", target)
	}
	return nil
}

// prose returns the lines of a document, those inside fenced blocks emptied.
func (c *checker) prose(doc string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(c.root, filepath.FromSlash(doc)))
	if err != nil {
		return nil, fmt.Errorf("read document: %w", err)
	}
	lines := strings.Split(string(b), "\n")
	fence := ""
	for i, line := range lines {
		mark := strings.TrimSpace(line)
		switch {
		case fence != "":
			if strings.HasPrefix(mark, fence) {
				fence = ""
			}
			lines[i] = ""
		case strings.HasPrefix(mark, "```"), strings.HasPrefix(mark, "~~~"):
			fence, lines[i] = mark[:3], ""
		}
	}
	return lines, nil
}

// anchors returns the names that the headings of a document get on GitHub.
func (c *checker) anchors(doc string) (map[string]bool, error) {
	lines, err := c.prose(doc)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, line := range lines {
		m := heading.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name := anchor(markup.ReplaceAllString(m[1], "$1"))
		for i := 1; names[name]; i++ {
			name = fmt.Sprintf("%s-%d", anchor(m[1]), i)
		}
		names[name] = true
	}
	return names, nil
}

func anchor(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			return unicode.ToLower(r)
		case r == ' ':
			return '-'
		}
		return -1
	}, title)
}
