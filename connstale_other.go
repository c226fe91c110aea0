// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package gemini

import "net"

// hearsUnquiet tells that isUnquiet can find something out. It cannot here: connections are
// left to net/http, which listens to those that it keeps.
const hearsUnquiet = false

func isUnquiet(net.Conn) bool { return true }
