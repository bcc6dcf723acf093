package store

import (
	"bytes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/crypto/chacha20poly1305"
)

// sealer seals values: XChaCha20-Poly1305, whose nonces are long enough to be drawn; bucket and key are authenticated too,
// so that whoever can write the file can't put a value in another one's place.
type sealer struct{ aead cipher.AEAD }

func newSealer(key [32]byte) (sealer, error) {
	a, err := chacha20poly1305.NewX(key[:])
	return sealer{a}, err
}

func place(bucket string, key []byte) []byte {
	return append(append([]byte(bucket), 0), key...)
}

func (s sealer) seal(bucket string, key, value []byte) []byte {
	b := make([]byte, chacha20poly1305.NonceSizeX, chacha20poly1305.NonceSizeX+len(value)+chacha20poly1305.Overhead)
	_, _ = rand.Read(b) // never fails
	return s.aead.Seal(b, b, value, place(bucket, key))
}

func (s sealer) open(bucket string, key, sealed []byte) ([]byte, bool) {
	if len(sealed) < chacha20poly1305.NonceSizeX {
		return nil, false
	}
	n := chacha20poly1305.NonceSizeX
	v, err := s.aead.Open(nil, sealed[:n], sealed[n:], place(bucket, key))
	return v, err == nil
}

// keyRounds of PBKDF2-HMAC-SHA256 stand between a passphrase and the key: half a second on a PC of 2015, some seconds on a
// router. scrypt would want 16 MB and more, which such a router does not have.
const keyRounds = 300_000

const keyMagic = "skywire kv key 1"

// KeyFile returns the key of a KV, kept in a file of its own, which is made if it is not there. With a passphrase the file
// alone opens nothing; ErrKey says that it is not the right one.
//
//	magic 16 │ rounds 4 │ salt 16 │ key 32                         rounds 0: no passphrase
//	magic 16 │ rounds 4 │ salt 16 │ nonce 24 │ sealed key 48
func KeyFile(path, passphrase string) ([32]byte, error) {
	var key [32]byte
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		_, _ = rand.Read(key[:])
		return key, writeKey(path, passphrase, key)
	}
	if err != nil {
		return key, err
	}
	head := len(keyMagic) + 4 + 16
	if len(b) < head || !bytes.HasPrefix(b, []byte(keyMagic)) {
		return key, fmt.Errorf("key file %s: %w", path, ErrFormat)
	}
	rounds, salt := binary.BigEndian.Uint32(b[len(keyMagic):]), b[len(keyMagic)+4:head]
	switch {
	case rounds == 0 && len(b) == head+32 && passphrase == "":
		return [32]byte(b[head:]), nil
	case rounds == 0 || passphrase == "":
		return key, fmt.Errorf("key file %s: %w", path, ErrKey)
	case rounds > 100*keyRounds:
		return key, fmt.Errorf("key file %s: %w", path, ErrFormat)
	}
	s, err := passphraseSealer(passphrase, salt, int(rounds))
	if err != nil {
		return key, err
	}
	v, ok := s.open(keyMagic, salt, b[head:])
	if !ok || len(v) != 32 {
		return key, fmt.Errorf("key file %s: %w", path, ErrKey)
	}
	return [32]byte(v), nil
}

func passphraseSealer(passphrase string, salt []byte, rounds int) (sealer, error) {
	k, err := pbkdf2.Key(sha256.New, passphrase, salt, rounds, 32)
	if err != nil {
		return sealer{}, err
	}
	return newSealer([32]byte(k))
}

func writeKey(path, passphrase string, key [32]byte) error {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt)
	rounds := keyRounds
	if passphrase == "" {
		rounds = 0
	}
	b := append(binary.BigEndian.AppendUint32([]byte(keyMagic), uint32(rounds)), salt...)
	if passphrase == "" {
		b = append(b, key[:]...)
	} else {
		s, err := passphraseSealer(passphrase, salt, rounds)
		if err != nil {
			return err
		}
		b = append(b, s.seal(keyMagic, salt, key[:])...)
	}
	if err := mkParent(path); err != nil {
		return err
	}
	return replaceFile(path, b)
}

// replaceFile puts a file in place whole or not at all.
func replaceFile(path string, b []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return classify(err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(next)
		return classify(err)
	}
	if err := os.Rename(next, path); err != nil {
		return classify(err)
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename durable; Windows has no such call and needs none.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return classify(errors.Join(d.Sync(), d.Close()))
}
