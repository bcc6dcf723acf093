package update

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"skywire/mesh/key"
)

const (
	// ManifestName and SignatureName are the two files that every release has.
	ManifestName  = "manifest.json"
	SignatureName = "manifest.json.sig"

	// kind separates signatures of releases from all others: "skywire release 1", zero, eight zeros (a release belongs to no
	// network), then the bytes of manifest.json.
	kind = "release"
	// format is the form of the manifest that this version reads and writes.
	format = 1

	maxManifest   = 64 << 10  // some 200 files
	maxSignatures = 4 << 10   // some 25 keys
	maxFiles      = 200       // platforms and variants
	maxProgram    = 128 << 20 // ten times what it is today
	maxName       = 128
	maxVersion    = 64
)

// Manifest says what a release is made of.
type Manifest struct {
	Format  int    `json:"format"`
	Version string `json:"version"`
	// MinVersion is the oldest version that can change to this one at once; empty: any can.
	MinVersion string    `json:"min_version,omitempty"`
	Time       time.Time `json:"time"`
	Files      []File    `json:"files"`
}

// File is the program for one platform.
type File struct {
	// Platform is GOOS-GOARCH, with GOARM or GOMIPS behind it where there are several, and -mini for the small variant.
	Platform string `json:"platform"`
	Name     string `json:"name"` // in the folder of the release
	Size     int64  `json:"size"`
	SHA256   string `json:"sha256"` // hex
}

// ParseManifest reads a manifest and checks every word in it.
func ParseManifest(b []byte) (Manifest, error) {
	var m Manifest
	if len(b) > maxManifest {
		return m, fmt.Errorf("%w: longer than %d bytes", ErrManifest, maxManifest)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("%w: %v", ErrManifest, err)
	}
	if m.Format != format {
		return m, fmt.Errorf("%w of format %d; this version reads %d", ErrManifest, m.Format, format)
	}
	if !plain(m.Version, maxVersion) || m.MinVersion != "" && !plain(m.MinVersion, maxVersion) {
		return m, fmt.Errorf("%w: version %.80q from %.80q", ErrManifest, m.Version, m.MinVersion)
	}
	if len(m.Files) == 0 || len(m.Files) > maxFiles {
		return m, fmt.Errorf("%w: %d files", ErrManifest, len(m.Files))
	}
	seen := map[string]bool{}
	for _, f := range m.Files {
		if err := f.check(); err != nil {
			return m, err
		}
		if seen[f.Platform] {
			return m, fmt.Errorf("%w: two files for %s", ErrManifest, f.Platform)
		}
		seen[f.Platform] = true
	}
	return m, nil
}

func (f File) check() error {
	sum, err := hex.DecodeString(f.SHA256)
	if !plain(f.Platform, maxName) || !plain(f.Name, maxName) || f.Size <= 0 || f.Size > maxProgram || err != nil || len(sum) != 32 ||
		f.SHA256 != strings.ToLower(f.SHA256) {
		return fmt.Errorf("%w: file %.200q for %.200q", ErrManifest, f.Name, f.Platform)
	}
	return nil
}

// plain reports whether s can be a name of a file or a version: it never leads out of a folder.
func plain(s string, most int) bool {
	return s != "" && len(s) <= most && s[0] != '.' && s[0] != '-' && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-+~", r)
	}) < 0
}

// For finds the program of a platform.
func (m Manifest) For(platform string) (File, error) {
	i := slices.IndexFunc(m.Files, func(f File) bool { return f.Platform == platform })
	if i < 0 {
		return File{}, fmt.Errorf("%w (%s)", ErrPlatform, platform)
	}
	return m.Files[i], nil
}

// Suits says whether a box that runs current should change to m; nil if it should.
func (m Manifest) Suits(current string) error {
	switch {
	case Compare(m.Version, current) <= 0:
		return fmt.Errorf("%s is %w (%s)", m.Version, ErrNotNewer, current)
	case m.MinVersion != "" && Compare(current, m.MinVersion) < 0:
		return fmt.Errorf("%w: %s needs %s to start from, this is %s", ErrStep, m.Version, m.MinVersion, current)
	}
	return nil
}

// Append gives the manifest in the form that is signed.
func (m Manifest) Append(dst []byte) ([]byte, error) {
	m.Format = format
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, err
	}
	if _, err := ParseManifest(b); err != nil {
		return nil, err
	}
	return append(append(dst, b...), '\n'), nil
}

// Sign is the line that a key puts into manifest.json.sig: the key, a space, the signature in base64.
func Sign(k *key.Private, manifest []byte) string {
	s := k.Sign(kind, key.NetworkID{}, manifest)
	return k.Public().String() + " " + base64.StdEncoding.EncodeToString(s[:]) + "\n"
}

// Verify finds a key among the trusted ones that has signed the manifest.
func Verify(manifest, signatures []byte, trusted []key.Public) (key.Public, error) {
	if len(trusted) == 0 {
		return key.Public{}, ErrNoKeys
	}
	if len(signatures) > maxSignatures {
		return key.Public{}, fmt.Errorf("%w: %s is too long", ErrSignature, SignatureName)
	}
	var by []string
	for line := range strings.Lines(string(signatures)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		k, err := key.Parse(name)
		if err != nil {
			continue
		}
		by = append(by, k.Short())
		sig, err := base64.StdEncoding.DecodeString(text)
		if err == nil && slices.Contains(trusted, k) && k.Verify(kind, key.NetworkID{}, manifest, sig) {
			return k, nil
		}
	}
	if len(by) == 0 {
		return key.Public{}, fmt.Errorf("%w: not signed at all", ErrSignature)
	}
	return key.Public{}, fmt.Errorf("%w: names %s, and the signature holds under none that is trusted", ErrSignature, strings.Join(by, " "))
}

// Source is where a release lies.
type Source interface {
	// Open gives a file of the release from its start; name is plain. The caller closes it, and bounds what it reads.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
}

// Release fetches a manifest and believes it only if a trusted key has signed it.
func Release(ctx context.Context, from Source, trusted []key.Public) (Manifest, key.Public, error) {
	raw, err := read(ctx, from, ManifestName, maxManifest)
	if err != nil {
		return Manifest{}, key.Public{}, err
	}
	signatures, err := read(ctx, from, SignatureName, maxSignatures)
	if err != nil {
		return Manifest{}, key.Public{}, err
	}
	by, err := Verify(raw, signatures, trusted)
	if err != nil {
		return Manifest{}, key.Public{}, err
	}
	m, err := ParseManifest(bytes.TrimSpace(raw))
	return m, by, err
}

func read(ctx context.Context, from Source, name string, most int64) ([]byte, error) {
	r, err := from.Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(b)) > most {
		return nil, fmt.Errorf("%s: %w: longer than %d bytes", name, ErrManifest, most)
	}
	return b, nil
}
