// SPDX-License-Identifier: Apache-2.0

package gemini

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
