package app

import (
	"encoding/json"
	"fmt"
	"net"

	"skywire/signal"
)

// readJSON reads one line into v and nothing beyond it.
func readJSON(conn *net.UnixConn, v any) error {
	line, files, err := signal.ReadLine(conn, maxLine)
	if err != nil {
		return err
	}
	for _, f := range files {
		f.Close() // the node sends none
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("node's line: %w", err)
	}
	return nil
}
