package session

import (
	"testing"

	"skywire/mesh/key"
)

func TestShared(t *testing.T) {
	t.Parallel()
	var ids []*key.Private
	for range 3 {
		k, err := key.Generate()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, k)
	}
	secret := func(a, b int, label string) [32]byte {
		s, err := Shared(ids[a], ids[b].Public(), label)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if secret(0, 1, "x") != secret(1, 0, "x") {
		t.Error("the two ends have different secrets")
	}
	if secret(0, 1, "x") == secret(0, 2, "x") || secret(0, 1, "x") == secret(0, 1, "y") {
		t.Error("others have the same secret")
	}
}
