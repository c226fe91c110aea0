//go:build !linux

package main

import "errors"

// Elsewhere the bench measures time alone.

func resetPeak(int) error { return errors.ErrUnsupported }

func readUsage(int) (usage, error) { return usage{}, errors.ErrUnsupported }
