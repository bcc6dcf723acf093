//go:build !unix

package applets

import "os"

// childEnded never tells: nothing is adopted here.
func childEnded() (<-chan os.Signal, func()) { return nil, func() {} }
