// SPDX-License-Identifier: Apache-2.0

package simulator

import (
	"cmp"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

// gptImages is OpenAI's images/generations and images/edits. It takes any name
// for a model, as aggregators have many.
type gptImages struct{ edits bool }

// gptOptions are what a call of OpenAI's API says beside what all dialects can
// say.
type gptOptions struct {
	model  string // as the client names it: google/gemini-3-pro-image
	asURL  bool   // pictures are wanted as URLs
	usage  bool   // wanted at the end of a stream
	drafts int    // pictures to be shown on the way to the final one

	background, quality, size string // repeated in the answer
}

// maxReferences is how many images may be edited together.
const maxReferences = 16

func (gptImages) failure(_ *call, e *apiError) any { return gptErrorBody(e) }

func (g gptImages) parse(c *call, body string) *apiError {
	root, fail := g.read(c, body)
	if fail != nil {
		return fail
	}
	if root.Get("prompt").Str == "" {
		return missingParam("prompt")
	}
	c.setPrompt(root.Get("prompt").Str)
	c.setGPTModel(cmp.Or(root.Get("model").Str, "gpt-image-1"))
	c.image, c.stream = true, root.Get("stream").Bool()
	if c.isGPTImage() && isGiven(root.Get("response_format")) {
		return unknownParam("response_format") // they know one format only
	}
	// As the reference has it, URLs are the default of all others.
	c.gpt.asURL = !c.isGPTImage() && root.Get("response_format").Str != "b64_json"
	c.mime = "image/" + cmp.Or(root.Get("output_format").Str, "png")
	c.gpt.background = cmp.Or(root.Get("background").Str, "auto")
	c.gpt.quality = cmp.Or(root.Get("quality").Str, "auto")
	if fail = checkChoices(root); fail != nil {
		return fail
	}
	if c.samples, fail = integer(root, "n", 1, maxImages); fail != nil {
		return fail
	}
	if c.gpt.drafts, fail = integer(root, "partial_images", 0, 3); fail != nil {
		return fail
	}
	return c.setGPTSize(cmp.Or(root.Get("size").Str, "auto"))
}

// read gives the parameters of a request, and counts the images that are to be
// edited: out of a form, or out of JSON, which takes references to them.
func (g gptImages) read(c *call, body string) (gjson.Result, *apiError) {
	if !g.edits {
		return parseGPT(body, generationFields)
	}
	if boundary := formBoundary(c.contentType); boundary != "" {
		return c.readGPTForm(body, boundary)
	}
	root, fail := parseGPT(body, editFields)
	if fail != nil {
		return root, fail
	}
	c.promptImages, fail = countReferences(root)
	return root, fail
}

// setGPTModel takes a name that may have its maker before it.
func (c *call) setGPTModel(name string) {
	c.gpt.model, c.model = name, path.Base(name)
}

func (c *call) isGPTImage() bool { return strings.HasPrefix(c.model, "gpt-image") }

var gptSize = regexp.MustCompile(`^([1-9]\d{1,3})x([1-9]\d{1,3})$`)

// setGPTSize takes any size within reason, as the newer models do. Its ratio is
// drawn exactly; the number of pixels decides how large a file it gets.
func (c *call) setGPTSize(size string) *apiError {
	c.gpt.size = size
	if size == "auto" {
		c.gpt.size = "1024x1024"
		return nil
	}
	match := gptSize.FindStringSubmatch(size)
	if match == nil {
		return invalidChoice("size", size, "1024x1024", "1024x1536", "1536x1024", "auto")
	}
	width, _ := strconv.Atoi(match[1])
	height, _ := strconv.Atoi(match[2])
	if width > 8*height || height > 8*width {
		return badParam("size", "invalid_value", "Invalid size '%s'. The longest edge must be no more than 8 times the shortest edge.", size)
	}
	c.aspect = match[1] + ":" + match[2]
	c.size = sizeOf(width * height)
	return nil
}

// sizeOf is Google's word for a number of pixels.
func sizeOf(pixels int) string {
	switch {
	case pixels <= 512*512:
		return "512"
	case pixels <= 1792*1024: // OpenAI's largest before sizes were free
		return "1K"
	case pixels <= 2560*2048:
		return "2K"
	default:
		return "4K"
	}
}

// render ends a block as 400; after what is no block a picture is only missing.
func (g gptImages) render(x *exchange, a answer) error {
	switch {
	case a.breaks != nil:
		return x.fail(a.breaks)
	case len(a.candidates) == 0:
		return x.fail(x.call.moderationError(ofPrompt))
	}
	pictures := a.pictures()
	if len(pictures) == 0 && moderated[a.reason()] {
		return x.fail(x.call.moderationError(ofImage))
	}
	if x.call.stream {
		return g.stream(x, pictures, a.usage)
	}
	data := array{}
	for _, p := range pictures {
		data = append(data, object{x.call.gptPicture(p)})
	}
	answer := append(object{{"created", int(time.Now().Unix())}, {"data", data}}, x.call.gptLook()...)
	return x.json(append(answer, member{"usage", a.usage.gptImages()}))
}

func (a answer) pictures() []*picture {
	var all []*picture
	for _, c := range a.candidates {
		all = append(all, c.pictures()...)
	}
	return all
}

func (c *call) gptPicture(p *picture) member {
	if c.gpt.asURL {
		return member{"url", dataURL{p.mime, p.data}}
	}
	return member{"b64_json", p.data}
}

// gptLook is what an answer says about its pictures.
func (c *call) gptLook() object {
	return object{
		{"background", c.gpt.background},
		{"output_format", strings.TrimPrefix(c.mime, "image/")},
		{"quality", c.gpt.quality},
		{"size", c.gpt.size},
	}
}

// gptImages is the usage that goes with images. They cost no thoughts there.
func (u usage) gptImages() object {
	details := func(text, image int) object { return object{{"image_tokens", image}, {"text_tokens", text}} }
	return object{
		{"input_tokens", u.prompt()},
		{"input_tokens_details", details(u.promptText, u.promptImage)},
		{"output_tokens", u.text + u.image},
		{"output_tokens_details", details(u.text, u.image)},
		{"total_tokens", u.prompt() + u.text + u.image},
	}
}

// stream sends each picture as an event, after drafts of it if they are wanted.
func (g gptImages) stream(x *exchange, pictures []*picture, u usage) error {
	name := "image_generation"
	if g.edits {
		name = "image_edit"
	}
	out := x.open(http.StatusOK, eventStream)
	send := func(kind string, p *picture, more ...member) error {
		event := append(object{{"type", name + kind}, {"b64_json", p.data}, {"created_at", int(time.Now().Unix())}}, x.call.gptLook()...)
		_, _ = out.WriteString("event: " + name + kind + "\n")
		return x.gptEvent(out, append(event, more...))
	}
	for _, p := range pictures {
		for i := range x.call.gpt.drafts {
			if err := send(".partial_image", x.draft().picture, member{"partial_image_index", i}); err != nil {
				return err
			}
		}
		if err := send(".completed", p, member{"usage", u.gptImages()}); err != nil {
			return err
		}
	}
	return out.close()
}

// gptEvent writes one event, or the last line of one that has a name.
func (x *exchange) gptEvent(out output, data any) error {
	_, _ = out.WriteString("data: ")
	printer{w: out.Writer, tight: true}.print(data)
	_, _ = out.WriteString("\n\n")
	return out.flush()
}
