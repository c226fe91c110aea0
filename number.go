// SPDX-License-Identifier: Apache-2.0

package gemini

import (
	"bytes"
	"strconv"
)

// numberState is a state of the grammar of numbers (RFC 8259 §6).
type numberState uint8

const (
	numberStart numberState = iota
	numberMinus
	numberZero
	numberInt
	numberPoint
	numberFraction
	numberE
	numberESign
	numberExponent
)

func (n numberState) final() bool {
	return n == numberZero || n == numberInt || n == numberFraction || n == numberExponent
}

func (n numberState) next(c byte) (numberState, bool) {
	digit := c >= '0' && c <= '9'
	switch n {
	case numberStart, numberMinus:
		switch {
		case c == '0':
			return numberZero, true
		case digit:
			return numberInt, true
		case c == '-' && n == numberStart:
			return numberMinus, true
		}
	case numberZero, numberInt:
		switch {
		case digit && n == numberInt:
			return numberInt, true
		case c == '.':
			return numberPoint, true
		case c == 'e' || c == 'E':
			return numberE, true
		}
	case numberPoint, numberFraction:
		switch {
		case digit:
			return numberFraction, true
		case (c == 'e' || c == 'E') && n == numberFraction:
			return numberE, true
		}
	case numberE, numberESign, numberExponent:
		switch {
		case digit:
			return numberExponent, true
		case (c == '+' || c == '-') && n == numberE:
			return numberESign, true
		}
	}
	return n, false
}

// appendCanonical appends a number in a form that depends on its value alone:
// digits without zeros at either end, and the power of ten they are times.
func appendCanonical(b, number []byte) []byte {
	mantissa, power := number, 0
	if e := bytes.IndexAny(number, "eE"); e >= 0 {
		mantissa = number[:e]
		power, _ = strconv.Atoi(string(number[e+1:])) // out of range is as good as infinite
	}
	b = append(b, '+')
	digits := len(b)
	for i, c := range mantissa {
		switch {
		case c == '-':
			b[digits-1] = '-'
		case c == '.':
			power -= len(mantissa) - (i + 1)
		case c != '0' || len(b) > digits:
			b = append(b, c)
		}
	}
	short := bytes.TrimRight(b, "0")
	if len(short) == digits {
		return append(b[:digits-1], '0')
	}
	power += len(b) - len(short)
	return strconv.AppendInt(append(short, 'e'), int64(power), 10)
}
