package key

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"filippo.io/edwards25519"
	"golang.org/x/crypto/curve25519"
)

// good is the identity of the first seed 1,1,1… that gives sign bit 0.
func good(t testing.TB, first byte) *Private {
	t.Helper()
	for {
		k, err := FromSeed([32]byte(bytes.Repeat([]byte{first}, 32)))
		if err == nil {
			return k
		}
		first++
	}
}

func TestTextForm(t *testing.T) {
	t.Parallel()
	k := good(t, 1).Public()
	s := k.String()
	if len(s) != TextLen || s != strings.ToLower(s) || k.Short() != s[:8] {
		t.Fatalf("text form %q, short %q", s, k.Short())
	}
	for _, text := range []string{s, strings.ToUpper(s), hex.EncodeToString(k[:])} {
		if got, err := Parse(text); err != nil || got != k {
			t.Errorf("Parse(%q) = %v, %v", text, got, err)
		}
	}
	spare := s[:51] + string("abcdefghijklmnopqrstuvwxyz234567"[strings.IndexByte("abcdefghijklmnopqrstuvwxyz234567", s[51])|1])
	for _, text := range []string{"", s[:51], s + "a", spare, strings.Repeat("1", 52), strings.Repeat("zz", 32)} {
		if got, err := Parse(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("Parse(%q) = %v, %v, want ErrInvalid", text, got, err)
		}
	}
}

// badKeys are the keys of the attack list: the negative, with a torsion part, not canonical, of small order.
func badKeys(t testing.TB) map[string][]byte {
	t.Helper()
	k := good(t, 1).Public()
	a, err := new(edwards25519.Point).SetBytes(k[:])
	if err != nil {
		t.Fatal(err)
	}
	t8, err := new(edwards25519.Point).SetBytes(order8[0][:])
	if err != nil {
		t.Fatal(err)
	}
	bad := map[string][]byte{
		"short": k[:31], "empty": nil,
		"negative": new(edwards25519.Point).Negate(a).Bytes(),
	}
	small, mixed := edwards25519.NewIdentityPoint(), new(edwards25519.Point).Set(a)
	for i := range 8 {
		bad[fmt.Sprintf("small order %d", i)] = small.Bytes()
		if i > 0 {
			bad[fmt.Sprintf("torsion %d", i)] = mixed.Bytes()
		}
		small.Add(small, t8)
		mixed.Add(mixed, t8)
	}
	for i := range 19 { // y from p to 2^255-1, with both signs
		y := bytes.Repeat([]byte{0xff}, 32)
		y[0], y[31] = 0xed+byte(i), 0x7f
		bad[fmt.Sprintf("y is p+%d", i)] = y
		y = bytes.Clone(y)
		y[31] = 0xff
		bad[fmt.Sprintf("y is -(p+%d)", i)] = y
	}
	for y := byte(2); ; y++ { // the first y that is on no curve point
		b := make([]byte, 32)
		b[0] = y
		if _, err := new(edwards25519.Point).SetBytes(b); err != nil {
			bad["not on the curve"] = b
			break
		}
	}
	return bad
}

func TestBadKeysRefused(t *testing.T) {
	t.Parallel()
	for name, b := range badKeys(t) {
		if k, err := FromBytes(b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: FromBytes = %v, %v, want ErrInvalid", name, k, err)
		}
		if len(b) != 32 {
			continue
		}
		if _, err := Parse(encoding().EncodeToString(b)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: Parse = %v, want ErrInvalid", name, err)
		}
		if p, err := new(edwards25519.Point).SetBytes(b); err == nil && p.Equal(edwards25519.NewIdentityPoint()) == 0 {
			k, err := FromX25519([32]byte(p.BytesMontgomery()))
			if err == nil && k == Public(b) {
				t.Errorf("%s: FromX25519 accepts it", name)
			}
		}
	}
}

// Under a key of small order one signature verifies everything in Go; Verify must not let it.
func TestSmallOrderVerifiesNothing(t *testing.T) {
	t.Parallel()
	sig := make([]byte, 64)
	sig[0] = 1 // R is the identity, S is 0
	identity := Public{1}
	if !ed25519.Verify(identity[:], []byte("anything"), sig) {
		t.Log("the standard library refuses the identity point by now")
	}
	for name, b := range badKeys(t) {
		if len(b) == 32 && strings.HasPrefix(name, "small") && Public(b).Verify("setup", Open(), []byte("anything"), sig) {
			t.Errorf("%s verifies anything", name)
		}
	}
}

func TestX25519IsOneToOne(t *testing.T) {
	t.Parallel()
	for range 50 {
		k, err := Generate()
		if err != nil {
			t.Fatal(err)
		}
		x := k.X25519()
		want, err := curve25519.X25519(x[:], curve25519.Basepoint)
		if err != nil {
			t.Fatal(err)
		}
		if got := k.Public().X25519(); !bytes.Equal(got[:], want) {
			t.Fatalf("X25519 of the public key is %x, of the private one %x", got, want)
		}
		back, err := FromX25519(k.Public().X25519())
		if err != nil || back != k.Public() {
			t.Fatalf("FromX25519 = %v, %v, want %v", back, err, k.Public())
		}
	}
	for _, u := range [][32]byte{{}, {1}, {0: 0xec, 31: 0x7f}} {
		if k, err := FromX25519(u); err == nil {
			t.Errorf("FromX25519(%x) = %v", u, k)
		}
	}
	if x := (Public{2}).X25519(); x != [32]byte{} {
		if _, err := FromBytes(append([]byte{2}, make([]byte, 31)...)); err != nil {
			t.Logf("u of an unchecked key: %x", x)
		}
	}
}

func TestSign(t *testing.T) {
	t.Parallel()
	k := good(t, 1)
	sig := k.Sign("setup", Open(), []byte("body"))
	if !k.Public().Verify("setup", Open(), []byte("body"), sig[:]) {
		t.Fatal("own signature refused")
	}
	if k.Public().Verify("record", Open(), []byte("body"), sig[:]) || k.Public().Verify("setup", Cluster(k.Public()), []byte("body"), sig[:]) ||
		k.Public().Verify("setup", Open(), []byte("bodY"), sig[:]) || k.Public().Verify("setup", Open(), []byte("body"), sig[:63]) {
		t.Fatal("signature verifies for another kind, network or body")
	}
}

func TestAddresses(t *testing.T) {
	t.Parallel()
	k := good(t, 1).Public()
	for _, id := range []NetworkID{Open(), Cluster(k)} {
		a := id.Address(k)
		if !id.Prefix().Contains(a) || id.Prefix().Bits() != 48 || a.As16()[0] != 0xfd {
			t.Errorf("address %v, prefix %v", a, id.Prefix())
		}
	}
	if Open().Address(k) == Cluster(k).Address(k) {
		t.Error("one address in two networks")
	}
}

func TestPrivateNeverPrints(t *testing.T) {
	t.Parallel()
	k := good(t, 1)
	seed := k.Seed()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for _, v := range []any{k, []*Private{k}} {
			s := fmt.Sprintf(verb, v)
			if strings.Contains(s, hex.EncodeToString(seed[:4])) || strings.Contains(s, "1 1 1") || strings.Contains(s, "0x1, 0x1") {
				t.Errorf("%s prints the seed: %s", verb, s)
			}
		}
	}
	if b, err := json.Marshal(k); err == nil {
		t.Errorf("JSON of a private key: %s", b)
	}
	b, err := json.Marshal(map[string]any{"k": k.Public(), "n": Open()})
	if err != nil || !strings.Contains(string(b), k.Public().String()) {
		t.Errorf("JSON of a public key: %s, %v", b, err)
	}
}

func TestLoadOrCreate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state", "key")
	k, created, err := LoadOrCreate(path)
	if err != nil || !created {
		t.Fatalf("first: %v, created %v", err, created)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	again, created, err := LoadOrCreate(path)
	if err != nil || created || again.Public() != k.Public() {
		t.Fatalf("second: %v, created %v, %v", again, created, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".key-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, _, err := LoadOrCreate(path); !errors.Is(err, ErrMode) {
		t.Errorf("readable by the group: %v, want ErrMode", err)
	}
}

func TestDamagedFileStays(t *testing.T) {
	t.Parallel()
	for _, content := range []string{"", "\n", fileTag, fileTag + "aaaa\n", "-----BEGIN PRIVATE KEY-----\n", strings.Repeat("x", 10000)} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := LoadOrCreate(path); !errors.Is(err, ErrFile) {
			t.Errorf("%.20q: %v, want ErrFile", content, err)
		}
		if b, _ := os.ReadFile(path); string(b) != content {
			t.Errorf("%.20q: file was changed", content)
		}
	}
}

func TestCreateRace(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key")
	var wg sync.WaitGroup
	var mu sync.Mutex
	keys, winners := map[Public]int{}, 0
	for range 8 {
		wg.Go(func() {
			k, created, err := LoadOrCreate(path)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
				return
			}
			keys[k.Public()]++
			if created {
				winners++
			}
		})
	}
	wg.Wait()
	if len(keys) != 1 || winners != 1 {
		t.Errorf("%d identities, %d winners", len(keys), winners)
	}
}

func FuzzParse(f *testing.F) {
	k := good(f, 1).Public()
	f.Add(k.String())
	f.Add(hex.EncodeToString(k[:]))
	for _, b := range badKeys(f) {
		f.Add(hex.EncodeToString(b))
	}
	f.Fuzz(func(t *testing.T, s string) {
		k, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(k.String()); err != nil || again != k {
			t.Fatalf("%q: %v, %v", s, again, err)
		}
		if back, err := FromX25519(k.X25519()); err != nil || back != k {
			t.Fatalf("%q: its X25519 key gives %v, %v", s, back, err)
		}
	})
}

func BenchmarkFromBytes(b *testing.B) {
	k := good(b, 1).Public()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := FromBytes(k[:]); err != nil {
			b.Fatal(err)
		}
	}
}
