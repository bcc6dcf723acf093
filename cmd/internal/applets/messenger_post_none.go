//go:build !web && (mips || mipsle) && !mini

package applets

import "context"

// postHook is none in builds for small flash, which have no net/http: a hook that posts is refused when the messenger starts.
func postHook() func(ctx context.Context, url string, body []byte) error { return nil }
