package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// nobody owns the state in an image and runs it; the number is that of other images without a system.
const nobody = 65532

const (
	mediaIndex    = "application/vnd.oci.image.index.v1+json"
	mediaManifest = "application/vnd.oci.image.manifest.v1+json"
	mediaConfig   = "application/vnd.oci.image.config.v1+json"
	mediaLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant,omitempty"`
}

type layout struct {
	blobs []entry
	seen  map[string]bool
}

// add keeps a blob under its digest.
func (l *layout) add(mediaType string, b []byte) descriptor {
	sum := sha256.Sum256(b)
	name := hex.EncodeToString(sum[:])
	if !l.seen[name] {
		l.seen[name] = true
		l.blobs = append(l.blobs, entry{name: "blobs/sha256/" + name, mode: 0o644, body: b})
	}
	return descriptor{MediaType: mediaType, Digest: "sha256:" + name, Size: len(b)}
}

func (l *layout) addJSON(mediaType string, v any) (descriptor, error) {
	b, err := json.Marshal(v)
	return l.add(mediaType, b), err
}

// image writes an OCI image layout (opencontainers/image-spec, image-layout.md) with one index of all platforms, named by the version.
func image(out, version string, words []string, at time.Time) error {
	l := &layout{seen: map[string]bool{}}
	index := map[string]any{"schemaVersion": 2, "mediaType": mediaIndex}
	var manifests []descriptor
	for _, w := range words {
		name, file, ok := strings.Cut(w, "=")
		if !ok {
			return fmt.Errorf("%q is not PLATFORM=PROGRAM", w)
		}
		program, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		d, err := l.one(name, program, version, at)
		if err != nil {
			return err
		}
		manifests = append(manifests, d)
	}
	index["manifests"] = manifests
	all, err := l.addJSON(mediaIndex, index)
	if err != nil {
		return err
	}
	all.Annotations = map[string]string{"org.opencontainers.image.ref.name": version}
	top, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": mediaIndex, "manifests": []descriptor{all}})
	if err != nil {
		return err
	}
	var b bytes.Buffer
	files := append([]entry{
		{name: "oci-layout", mode: 0o644, body: []byte(`{"imageLayoutVersion":"1.0.0"}`)},
		{name: "index.json", mode: 0o644, body: top},
	}, l.blobs...)
	if err := writeTar(&b, files, at); err != nil {
		return err
	}
	return os.WriteFile(out, b.Bytes(), 0o644)
}

// one adds the image of one platform: GOOS-GOARCH or linux-arm-N.
func (l *layout) one(name string, program []byte, version string, at time.Time) (descriptor, error) {
	parts := strings.Split(name, "-")
	p := &platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) > 2 {
		p.Variant = "v" + parts[2]
	}
	var tarred, packed bytes.Buffer
	if err := writeTar(&tarred, root(program), at); err != nil {
		return descriptor{}, err
	}
	err := writeGzip(&packed, func(w io.Writer) error {
		_, err := w.Write(tarred.Bytes())
		return err
	})
	if err != nil {
		return descriptor{}, err
	}
	plain := sha256.Sum256(tarred.Bytes())
	config := map[string]any{
		"architecture": p.Architecture, "os": p.OS, "created": at.Format(time.RFC3339),
		"config": map[string]any{
			"User": fmt.Sprint(nobody), "Entrypoint": []string{"/usr/bin/skywire"}, "Cmd": []string{"node", "run"},
			"Env": []string{
				"PATH=/usr/bin", "HOME=/var/lib/skywire", "SKYWIRE_CONFIG=/etc/skywire/config.yaml", "SKYWIRE_STATE=/var/lib/skywire", "SKYWIRE_RUN=/run/skywire",
			},
			"ExposedPorts": map[string]any{"7667/udp": struct{}{}}, "Volumes": map[string]any{"/var/lib/skywire": struct{}{}},
			"Labels":     map[string]string{"org.opencontainers.image.title": "skywire", "org.opencontainers.image.version": version, "org.opencontainers.image.licenses": "MIT"},
			"StopSignal": "SIGTERM",
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(plain[:])}},
		"history": []map[string]string{{"created": at.Format(time.RFC3339), "created_by": "packaging/oci"}},
	}
	if p.Variant != "" {
		config["variant"] = p.Variant
	}
	c, err := l.addJSON(mediaConfig, config)
	if err != nil {
		return descriptor{}, err
	}
	d, err := l.addJSON(mediaManifest, map[string]any{
		"schemaVersion": 2, "mediaType": mediaManifest, "config": c, "layers": []descriptor{l.add(mediaLayer, packed.Bytes())},
	})
	d.Platform = p
	return d, err
}

// root is the whole file system of an image: the program, its names, and what it writes to.
func root(program []byte) []entry {
	all := []entry{
		{name: "etc/", mode: 0o755, dir: true},
		{name: "etc/skywire/", mode: 0o755, dir: true},
		{name: "etc/passwd", mode: 0o644, body: []byte("root:x:0:0:root:/:/none\nskywire:x:65532:65532:skywire:/var/lib/skywire:/none\n")},
		{name: "etc/group", mode: 0o644, body: []byte("root:x:0:\nskywire:x:65532:\n")},
		{name: "run/", mode: 0o755, dir: true},
		{name: "run/skywire/", mode: 0o750, dir: true, owner: nobody},
		{name: "tmp/", mode: 0o1777, dir: true},
		{name: "usr/", mode: 0o755, dir: true},
		{name: "usr/bin/", mode: 0o755, dir: true},
		{name: "usr/bin/skywire", mode: 0o755, body: program},
	}
	for _, n := range []string{"viscript", "skywire-node", "skywire-manager", "skywire-vpn", "skywire-socks", "skywire-apptracker"} {
		all = append(all, entry{name: "usr/bin/" + n, mode: 0o777, link: "skywire"})
	}
	return append(all,
		entry{name: "var/", mode: 0o755, dir: true}, entry{name: "var/lib/", mode: 0o755, dir: true},
		entry{name: "var/lib/skywire/", mode: 0o700, dir: true, owner: nobody})
}
