// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image/jpeg"
	"image/png"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
)

// picture is an encoded image as an answer carries it.
type picture struct {
	mime string
	data blob
}

// pictureKey says which picture is meant; equal keys give equal bytes.
type pictureKey struct {
	seed   uint64
	mime   string // image/png or image/jpeg
	aspect string // "16:9"; empty = 1:1
	size   string // 512, 1K, 2K or 4K; empty = 1K
}

// imageSize is what an imageConfig.imageSize comes to: the side of a square
// picture in pixels (other ratios have the same area), and the file size. The
// pixels are fewer than Google's to keep drawing cheap; the bytes are as many,
// for those are what a gateway has to carry.
type imageSize struct{ side, bytes int }

const defaultImageSize = "1K"

// Sent as base64, a third larger: about 0.5, 1.3, 4.8 and 17.6 MB.
var imageSizes = map[string]imageSize{
	"512": {side: 256, bytes: 375_000},
	"1K":  {side: 512, bytes: 975_000},
	"2K":  {side: 768, bytes: 3_600_000},
	"4K":  {side: 1024, bytes: 13_200_000},
}

// dimensions gives the pixels of a picture.
func (k pictureKey) dimensions() (width, height int) {
	side := float64(imageSizes[k.size].side)
	ratio := 1.0
	if w, h, ok := strings.Cut(k.aspect, ":"); ok {
		a, _ := strconv.ParseFloat(w, 64) // the schema lets known ratios pass only
		b, _ := strconv.ParseFloat(h, 64)
		ratio = a / b
	}
	return int(math.Round(side * math.Sqrt(ratio))), int(math.Round(side / math.Sqrt(ratio)))
}

// maxPictures bounds the cache of drawn pictures, at most some 10 MB: padding
// is shared by all and not part of it.
const maxPictures = 64

// gallery draws pictures and keeps the latest.
type gallery struct {
	drawn *bounded[pictureKey, picture]
}

func newGallery() *gallery {
	return &gallery{drawn: newBounded[pictureKey, picture](maxPictures)}
}

func (g *gallery) picture(key pictureKey) picture {
	if key.size == "" {
		key.size = defaultImageSize
	}
	if p, ok := g.drawn.get(key); ok {
		return p
	}
	p := draw(key)
	g.drawn.update(key, func(picture) (picture, bool) { return p, true })
	return p
}

// imageFormat is how a picture of one MIME type is encoded and padded.
type imageFormat struct {
	encode  func(*bytes.Buffer, *landscape) error
	headLen int           // padding goes in after this many bytes
	padding func() []byte // one unit of it
}

var imageFormats = map[string]imageFormat{
	"image/png": {
		encode: func(b *bytes.Buffer, l *landscape) error {
			return (&png.Encoder{CompressionLevel: png.BestSpeed}).Encode(b, l.image())
		},
		headLen: 8 + 4 + 4 + 13 + 4, // signature and the IHDR chunk
		padding: sync.OnceValue(pngPadding),
	},
	"image/jpeg": {
		encode: func(b *bytes.Buffer, l *landscape) error {
			return jpeg.Encode(b, l.image(), &jpeg.Options{Quality: 90})
		},
		headLen: 2, // the SOI marker
		padding: sync.OnceValue(jpegPadding),
	},
}

func draw(key pictureKey) picture {
	var encoded bytes.Buffer
	format := imageFormats[key.mime]
	width, height := key.dimensions()
	if err := format.encode(&encoded, newLandscape(key.seed, width, height)); err != nil {
		panic(fmt.Sprintf("BUG: encoding %s: %v", key.mime, err)) // a bytes.Buffer takes everything
	}
	unit := format.padding()
	missing := imageSizes[key.size].bytes - encoded.Len()
	return picture{mime: key.mime, data: blob{
		head:  encoded.Bytes()[:format.headLen],
		unit:  unit,
		count: max(0, missing/len(unit)),
		tail:  encoded.Bytes()[format.headLen:],
	}}
}

// paddingLen is the size of one unit of padding: the largest that a JPEG
// segment can have.
const paddingLen = 2 + 0xFFFF

// noise is incompressible, as image data and signatures are: a gzip stage on
// the way must not find the work easier than it is.
func noise(length int) []byte {
	var seed [32]byte
	data := make([]byte, length)
	_, _ = rand.NewChaCha8(seed).Read(data) // never fails
	return data
}

// pngPadding is a chunk that every decoder skips: ancillary, private, safe to
// copy (the case of its letters says so).
func pngPadding() []byte {
	const name = "paDd"
	data := noise(paddingLen - 4 - len(name) - 4)
	chunk := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
	chunk = append(append(chunk, name...), data...)
	return binary.BigEndian.AppendUint32(chunk, crc32.ChecksumIEEE(chunk[4:]))
}

// jpegPadding is an application segment that nobody has a use for; comments
// would be shown to people.
func jpegPadding() []byte {
	segment := []byte{0xFF, 0xEF, 0xFF, 0xFF} // APP15; the length counts itself
	return append(segment, noise(paddingLen-len(segment))...)
}

// signature is a thought signature of 1.1 MB in base64, as those of the
// Gemini 3 image models are.
var signature = sync.OnceValue(func() blob {
	return blob{unit: noise(paddingLen), count: 13}
})
