//go:build mini

package applets

import (
	"context"
	"errors"

	"skywire/cmd/internal/applet"
)

// Builds for small flash reach published services by socks client and the vpn; publishing and forwarding is for others.

func notInMini(_ context.Context, e *applet.Env) int {
	e.Talk("socks", "not in this small build of skywire: it reaches what others publish by socks client and vpn, and publishes and forwards nothing itself")
	return applet.NotFound
}

func socksPublish(ctx context.Context, e *applet.Env) int   { return notInMini(ctx, e) }
func socksGrant(ctx context.Context, e *applet.Env) int     { return notInMini(ctx, e) }
func socksRevoke(ctx context.Context, e *applet.Env) int    { return notInMini(ctx, e) }
func socksPublished(ctx context.Context, e *applet.Env) int { return notInMini(ctx, e) }
func socksServices(ctx context.Context, e *applet.Env) int  { return notInMini(ctx, e) }
func socksForward(ctx context.Context, e *applet.Env) int   { return notInMini(ctx, e) }

func socksPrintForward(*applet.Env, socksReport) error   { return errors.ErrUnsupported }
func socksPrintPublisher(*applet.Env, socksReport) error { return errors.ErrUnsupported }
