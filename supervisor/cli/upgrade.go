package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skywire/supervisor"
)

// upgrade asks viscript to replace itself and waits until it has.
func upgrade(ctx context.Context, s *session, f *flags) error {
	if _, err := f.parse(0, 0, false); err != nil {
		return err
	}
	var up supervisor.Upgraded
	if err := s.call(ctx, "viscript.upgrade", nil, &up, true); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, comeBack)
	defer cancel()
	t := time.NewTicker(retryEvery)
	defer t.Stop()
	for {
		var in supervisor.Info
		err := s.call(ctx, "viscript.status", nil, &in, false)
		if err == nil && in.Generation >= up.Generation {
			if f.json {
				return s.printJSON(up)
			}
			fmt.Fprintf(s.out, "%s\n", in.Version)
			s.talk("process %d runs version %s now (before: %s), %d apps went on", in.PID, in.Version, up.From, up.Apps)
			return nil
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			if err == nil {
				err = errors.New("the old program goes on; its log says why")
			}
			return fmt.Errorf("not upgraded within %v: %w", comeBack, err)
		}
	}
}
