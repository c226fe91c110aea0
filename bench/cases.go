package main

// Models that the calls name. Only those of image calls match the gateway's
// default image_models, so text calls show the cost of being passed on.
const (
	textModel  = "gemini-2.5-flash"
	imageModel = "gemini-3-pro-image-preview"
)

// halfLoad leaves room for what comes late to be made up for, if a proxy is no
// slower than bare Caddy.
const halfLoad = 0.5

// MB is the decimal megabyte in which the targets are set.
const MB = 1_000_000

// benchCase is one kind of call, measured in equal blocks on every target.
type benchCase struct {
	name   string
	model  string
	stream bool
	tls    bool // the upstream is reached over TLS, with HTTP/2 on offer

	inlineData int           // size of the image in the request; 0 = a prompt of a few words
	zipped     bool          // the request is sent as gzip
	answer     func() answer // what the upstream sends
	unzips     bool          // the client takes no gzip: what a proxy asks for, it has to undo
	blocked    bool          // the gateway is expected to turn the answer into a 400

	gateway   string // the gateway's block in the Caddyfile, with $URL for the upstream; default oneUpstream
	untouched bool   // that block has the gateway pass requests on as they are
	primed    bool   // the gateway has seen a block before, so that it compares every call with it

	conns    int     // parallel connections
	calls    int     // calls in one block, long enough to outlast the 10 ms ticks of CPU accounting
	load     float64 // an open loop, at this part of the rate that bare Caddy reaches in a closed one
	inFlight bool    // no client reads past its first byte before all have theirs; calls == conns
	together bool    // the upstream answers no call before it has all requests in full; calls == conns

	rows []row // what the report prints
}

// The gateway's blocks in the Caddyfile.
const (
	oneUpstream = `
		upstream fake $URL`
	// unguarded sends a prompt that was blocked again, and again.
	unguarded = `
		guard off
		upstream fake $URL`
	// unkept completes a request on its way and forgets it: nothing can need it
	// again.
	unkept = `
		retry off
		guard off
		upstream fake $URL`
	// passedOn does not look into a request.
	passedOn = `
		inject off
		retry off
		guard off
		upstream fake $URL`
	// everyUpstream has what a call that fails could need; no call does.
	everyUpstream = `
		retry {
			attempts 5
			deadline 1m
		}
		guard 24h
		upstream fake $URL {
			api_key bench-1 project-1
			api_key bench-2 project-2
		}
		upstream second $URL {
			api_key bench-3
			accept_blocked
		}
		upstream third $URL {
			api_key bench-1 project-1
			model gemini-3-pro-image* gemini-2.5-flash-image
		}`
)

// path is the call's URL as Google's SDKs spell it.
func (c *benchCase) path() string {
	if c.stream {
		return "/v1beta/models/" + c.model + ":streamGenerateContent?alt=sse"
	}
	return "/v1beta/models/" + c.model + ":generateContent"
}

// request is the call's body. It sets neither safetySettings nor
// responseModalities, so that the gateway has to complete every call.
func (c *benchCase) request() string {
	if c.inlineData == 0 {
		return `{"contents":[{"role":"user","parts":[{"text":"A small red lighthouse at dawn"}]}]}`
	}
	return `{"contents":[{"role":"user","parts":[{"inlineData":{"mimeType":"image/png","data":"` +
		base64Text(c.inlineData) + `"}},{"text":"Make the sky darker"}]}]}`
}

// isBurst tells that all calls of a block are held at the same time. It is about
// memory, and has neither a warm-up nor a direct way.
func (c *benchCase) isBurst() bool { return c.inFlight || c.together }

// quick shrinks a case to a smoke test.
func (c benchCase) quick() benchCase {
	if !c.isBurst() {
		c.calls = max(c.calls/4, c.conns)
	}
	return c
}

// What the report prints of a kind of case. The bounds are what every release
// must keep (issue #2), and what it aims at (issue #6).
var (
	textRows    = []row{{p50, atMost(1.1, 0.75)}, {p99, nil}, {firstByte, nil}, {firstByteAdded, nil}, {cpuPerCall, atMost(1.1, 0.7)}, {peakRSS, nil}}
	loadRows    = []row{{throughput, nil}, {p50, nil}, {p99, nil}, {cpuPerCall, nil}, {peakRSS, nil}}
	text64Rows  = []row{{throughput, atLeast(0.9, 1.5)}, {p50, nil}, {p99, nil}, {cpuPerCall, nil}, {peakRSS, nil}}
	answerRows  = []row{{p50, nil}, {p99, nil}, {firstByte, nil}, {cpuPerCall, nil}, {peakRSS, nil}}
	imageRows   = []row{{p50, atMost(1.1, 0.5)}, {p99, nil}, {firstByte, nil}, {cpuPerCall, atMost(1.1, 0.5)}, {peakRSS, nil}}
	tlsRows     = []row{{p50, atMost(1, 0.5)}, {p99, nil}, {firstByte, nil}, {cpuPerCall, atMost(1, 0.5)}, {peakRSS, nil}}
	firstRows   = []row{{firstByte, nil}, {firstByteAdded, atMost(1.25, 1)}}
	plainRows   = []row{{p50, nil}, {p99, nil}, {cpuPerCall, nil}, {peakRSS, nil}}
	requestRows = []row{{p50, atMost(1.25, 1)}, {p99, nil}, {cpuPerCall, atMost(1.3, 1)}, {peakRSS, nil}}
	keptRows    = []row{{p50, atMost(1.5, 1.2)}, {p99, nil}, {cpuPerCall, atMost(1.7, 1.2)}, {peakRSS, nil}}
	delayRows   = []row{{eventDelay, atMost(1.1, 1)}, {eventDelay99, nil}}
	memoryRows  = []row{{peakRSS, gatewayAtMost(30, 15)}}
	heldRows    = []row{{keptRSS, gatewayAtMost(1.25, 1.05)}, {peakRSS, nil}}
)

// refusal is a call with an answer that the gateway takes for a block.
var refusal = benchCase{name: "block", model: imageModel, answer: blockAnswer, blocked: true}

// cases are all that is measured, in the order of the report. The first one
// also brings a fresh process to the state that counts as idle.
var cases = []benchCase{
	{name: "text-1k", model: textModel, answer: textAnswer, conns: 1, calls: 2000, rows: textRows},
	{name: "text-1k-8", model: textModel, answer: textAnswer, conns: 8, calls: 6000, rows: loadRows},
	{name: "text-1k-64", model: textModel, answer: textAnswer, conns: 64, calls: 8000, rows: text64Rows},
	{name: "text-1k-open", model: textModel, answer: textAnswer, load: halfLoad, conns: 64, calls: 4000, rows: loadRows},
	{name: "attempts-1k", model: textModel, answer: textAnswer, gateway: everyUpstream, primed: true, conns: 1, calls: 2000, rows: plainRows},

	{name: "image-1.5M", model: imageModel, answer: imageAnswer(1.5 * MB), conns: 1, calls: 200, rows: answerRows},
	{name: "image-6M", model: imageModel, answer: imageAnswer(6 * MB), conns: 1, calls: 60, rows: imageRows},
	{name: "image-20M", model: imageModel, answer: imageAnswer(20 * MB), conns: 1, calls: 24, rows: imageRows},
	{name: "image-6M-64", model: imageModel, answer: imageAnswer(6 * MB), conns: 64, calls: 128, rows: loadRows},
	{name: "image-6M-open", model: imageModel, answer: imageAnswer(6 * MB), load: halfLoad, conns: 64, calls: 80, rows: loadRows},
	{name: "image-6M-tls", model: imageModel, answer: imageAnswer(6 * MB), tls: true, conns: 1, calls: 60, rows: tlsRows},
	{name: "image-20M-tls", model: imageModel, answer: imageAnswer(20 * MB), tls: true, conns: 1, calls: 24, rows: tlsRows},
	{name: "image-1.5M-gzip", model: imageModel, answer: gzipped(imageAnswer(1.5 * MB)), unzips: true, conns: 1, calls: 80, rows: answerRows},
	{name: "image-1.5M-gzip-asked", model: imageModel, answer: gzipped(imageAnswer(1.5 * MB)), conns: 1, calls: 80, rows: answerRows},
	{name: "first-byte-6M", model: imageModel, answer: restedAnswer(6 * MB), conns: 1, calls: 60, rows: firstRows},

	{name: "request-1.5M", model: imageModel, inlineData: 1.5 * MB, answer: imageAnswer(1000), gateway: unkept, conns: 1, calls: 200, rows: plainRows},
	{name: "request-10M", model: imageModel, inlineData: 10 * MB, answer: imageAnswer(1000), gateway: unkept, conns: 1, calls: 40, rows: requestRows},
	{name: "request-1.5M-kept", model: imageModel, inlineData: 1.5 * MB, answer: imageAnswer(1000), conns: 1, calls: 200, rows: plainRows},
	{name: "request-1.5M-kept-8", model: imageModel, inlineData: 1.5 * MB, answer: imageAnswer(1000), conns: 8, calls: 200, rows: loadRows},
	{name: "request-10M-kept", model: imageModel, inlineData: 10 * MB, answer: imageAnswer(1000), conns: 1, calls: 40, rows: keptRows},
	{name: "request-1.5M-gzip", model: imageModel, inlineData: 1.5 * MB, zipped: true, answer: imageAnswer(1000), conns: 1, calls: 80, rows: plainRows},
	{name: "request-1.5M-gzip-passed", model: imageModel, inlineData: 1.5 * MB, zipped: true, answer: imageAnswer(1000), gateway: passedOn, untouched: true, conns: 1, calls: 200, rows: plainRows},

	{name: "block", model: imageModel, answer: blockAnswer, blocked: true, gateway: unguarded, conns: 1, calls: 1000, rows: plainRows},

	{name: "sse-text", model: textModel, stream: true, answer: textStream, conns: 1, calls: 500, rows: answerRows},
	{name: "sse-text-64", model: textModel, stream: true, answer: textStream, conns: 64, calls: 2000, rows: loadRows},
	{name: "sse-image", model: imageModel, stream: true, answer: imageStream, conns: 1, calls: 200, rows: answerRows},
	{name: "sse-delay", model: textModel, stream: true, answer: pacedStream, conns: 1, calls: 10, rows: delayRows},

	{name: "memory-6M-64", model: imageModel, answer: imageAnswer(6 * MB), conns: 64, calls: 64, inFlight: true, rows: memoryRows},
	{name: "memory-20M-64", model: imageModel, answer: imageAnswer(20 * MB), conns: 64, calls: 64, inFlight: true, rows: memoryRows},
	{name: "memory-request-10M-32", model: imageModel, inlineData: 10 * MB, answer: imageAnswer(1000), conns: 32, calls: 32, together: true, rows: heldRows},
}
