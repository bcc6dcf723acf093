//go:build !unix

package applets

import "os"

// replaceSelf is not possible here.
func replaceSelf(string) func([]string) error { return nil }

// childEnded never tells: nothing is adopted here.
func childEnded() (<-chan os.Signal, func()) { return nil, func() {} }

// reloadAsked never tells: there is no such signal here.
func reloadAsked() (<-chan os.Signal, func()) { return nil, func() {} }
