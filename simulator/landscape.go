// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"image"
	"image/color"
	"math"
	"math/rand/v2"
	"slices"
)

// landscape is what the simulator draws: a sun above ranges of hills, each
// prompt its own. Colours are flat per row or per hill, which is pretty enough
// and encodes fast.
type landscape struct {
	width, height int
	sky           [2]color.RGBA // at the top, at the horizon
	sun           color.RGBA
	sunX, sunY    float64 // in pixels, as is its radius
	sunR          float64
	hills         []hill // from far to near
}

// hill is a ridge made of two waves.
type hill struct {
	colour             color.RGBA
	base               float64 // height of the ridge, 0 = top, 1 = bottom
	amplitude          [2]float64
	frequency, shifted [2]float64
}

const hillCount = 5

func newLandscape(seed uint64, width, height int) *landscape {
	rng := rand.New(rand.NewPCG(seed, 0))
	hue := rng.Float64()
	l := &landscape{
		width: width, height: height,
		sky:  [2]color.RGBA{hsv(hue, 0.65, 0.55), hsv(hue+0.12, 0.35, 1)},
		sun:  hsv(hue+0.2, 0.25, 1),
		sunX: float64(width) * (0.2 + 0.6*rng.Float64()),
		sunY: float64(height) * (0.2 + 0.25*rng.Float64()),
		sunR: float64(min(width, height)) * (0.06 + 0.07*rng.Float64()),
	}
	for i := range hillCount {
		near := float64(i+1) / hillCount
		h := hill{colour: hsv(hue+0.08*near, 0.3+0.45*near, 0.8-0.65*near), base: 0.42 + 0.45*near}
		for wave := range h.amplitude {
			h.amplitude[wave] = (0.02 + 0.06*rng.Float64()) / float64(wave+1)
			h.frequency[wave] = (2 + 7*rng.Float64()) * float64(wave+1)
			h.shifted[wave] = 2 * math.Pi * rng.Float64()
		}
		l.hills = append(l.hills, h)
	}
	return l
}

func (l *landscape) image() image.Image {
	img := image.NewRGBA(image.Rect(0, 0, l.width, l.height))
	ridges := l.ridges()
	for y := range l.height {
		sky := mix(l.sky[0], l.sky[1], float64(y)/float64(l.height))
		row := img.Pix[y*img.Stride:]
		for x := range l.width {
			c := l.at(x, y, sky, ridges)
			copy(row[4*x:], []byte{c.R, c.G, c.B, c.A})
		}
	}
	return img
}

// ridges gives, for each hill and column, the first row of the hill.
func (l *landscape) ridges() [][]int {
	ridges := make([][]int, len(l.hills))
	for i, h := range l.hills {
		ridges[i] = make([]int, l.width)
		for x := range ridges[i] {
			at := h.base
			for wave := range h.amplitude {
				at += h.amplitude[wave] * math.Sin(h.shifted[wave]+h.frequency[wave]*float64(x)/float64(l.width))
			}
			ridges[i][x] = int(at * float64(l.height))
		}
	}
	return ridges
}

func (l *landscape) at(x, y int, sky color.RGBA, ridges [][]int) color.RGBA {
	for i, hill := range slices.Backward(l.hills) { // the nearest hides the others
		if y >= ridges[i][x] {
			return hill.colour
		}
	}
	if math.Hypot(float64(x)-l.sunX, float64(y)-l.sunY) < l.sunR {
		return l.sun
	}
	return sky
}

func mix(a, b color.RGBA, share float64) color.RGBA {
	channel := func(a, b uint8) uint8 { return uint8(float64(a) + share*(float64(b)-float64(a))) }
	return color.RGBA{R: channel(a.R, b.R), G: channel(a.G, b.G), B: channel(a.B, b.B), A: 255}
}

// hsv converts from hue (in turns), saturation and value.
func hsv(hue, saturation, value float64) color.RGBA {
	channel := func(n float64) uint8 {
		k := math.Mod(n+6*hue, 6)
		return uint8(255 * value * (1 - saturation*max(0, min(k, 4-k, 1))))
	}
	return color.RGBA{R: channel(5), G: channel(3), B: channel(1), A: 255}
}
