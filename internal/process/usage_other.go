// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package process

import "errors"

// Elsewhere these figures cannot be had without more than the standard library.

// ResetPeak fails with errors.ErrUnsupported.
func ResetPeak(int) error { return errors.ErrUnsupported }

// ReadUsage fails with errors.ErrUnsupported.
func ReadUsage(int) (Usage, error) { return Usage{}, errors.ErrUnsupported }

// OpenFiles fails with errors.ErrUnsupported.
func OpenFiles(int) (int, error) { return 0, errors.ErrUnsupported }
