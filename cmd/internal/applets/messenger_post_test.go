//go:build web || !(mips || mipsle || mini)

package applets

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestPostHook sends an event to a real server: what is no success is an error, and a redirect is not followed.
func TestPostHook(t *testing.T) {
	t.Parallel()
	var got []string
	mux := http.NewServeMux()
	mux.HandleFunc("POST /event", func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = append(got, r.Header.Get("Content-Type")+" "+string(b))
	})
	mux.Handle("POST /elsewhere", http.RedirectHandler("/event", http.StatusTemporaryRedirect))
	server := httptest.NewServer(mux)
	defer server.Close()
	post := postHook()
	if err := post(t.Context(), server.URL+"/event", []byte(`{"event":"message"}`)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/elsewhere": "307", "/nothing": "404"} {
		if err := post(t.Context(), server.URL+path, []byte("{}")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("post %s: %v, want %s in it", path, err, want)
		}
	}
	if len(got) != 1 || got[0] != `application/json {"event":"message"}` {
		t.Errorf("the server got %q", got)
	}
}
