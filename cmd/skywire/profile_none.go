//go:build !profile || !linux

package main

// profile is for benchmarks: see the build tag.
func profile() (stop func()) { return func() {} }
