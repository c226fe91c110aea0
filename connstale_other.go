// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package gemini

import "net"

// seesStale tells that isStale can find something out. It cannot here: connections are
// left to net/http, which listens to those that it keeps.
const seesStale = false

func isStale(net.Conn) bool { return true }
