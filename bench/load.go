package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// blockTimeout bounds everything that one block of calls may wait for.
const blockTimeout = 2 * time.Minute

// allInFlight is how long clients leave their answers unread once all have
// begun, so that a proxy that reads ahead shows how far; and how long the
// upstream keeps calls waiting that are held at the same time.
const allInFlight = 200 * time.Millisecond

// digest is what an answer is checked by: length and last bytes in every call,
// the whole only where hash is set, since hashing costs more than moving.
type digest struct {
	size int64
	tail [16]byte
	hash hash.Hash
}

func (d *digest) add(p []byte) {
	d.size += int64(len(p))
	if d.hash != nil {
		d.hash.Write(p)
	}
	if k := len(d.tail); len(p) >= k {
		copy(d.tail[:], p[len(p)-k:])
		return
	}
	copy(d.tail[:], d.tail[len(p):])
	copy(d.tail[len(d.tail)-len(p):], p)
}

// differs says how got departs from what was wanted.
func (d *digest) differs(got *digest) error {
	switch {
	case got.size != d.size:
		return fmt.Errorf("body of %d bytes, want %d", got.size, d.size)
	case got.tail != d.tail:
		return fmt.Errorf("body ends in %q, want %q", got.tail, d.tail)
	case d.hash != nil && got.hash != nil && !bytes.Equal(d.hash.Sum(nil), got.hash.Sum(nil)):
		return errors.New("body differs from what the upstream sent")
	}
	return nil
}

// job is one case on one target: the call to repeat and the answer to expect.
type job struct {
	spec   *benchCase
	target *target
	body   []byte
	paced  bool

	every    time.Duration // between two calls of an open loop; 0: a closed one
	together int           // calls that the upstream holds until it has them all; 0: none

	status int
	want   digest
}

func newJob(c *benchCase, t *target) *job {
	j := &job{spec: c, target: t, body: []byte(c.request()), status: http.StatusOK}
	if c.zipped {
		j.body = zipped(j.body)
	}
	a := c.answer()
	j.paced = a.pace > 0
	if !j.paced {
		j.want.hash = sha256.New()
	}
	for _, b := range a.writes {
		j.want.add(b)
	}
	return j
}

// timing is what one good call took.
type timing struct {
	total, first time.Duration
	delays       []time.Duration // of each paced event
}

// check makes the first call of a case and looks at all of its answer. The
// gateway has to have completed the request, or the figures are not its own.
func (j *job) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, blockTimeout)
	defer cancel()
	if j.spec.blocked && j.target.completes {
		return j.checkBlocked(ctx)
	}
	resp, err := j.send(ctx)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	received, err := strconv.Atoi(resp.Header.Get(receivedHeader))
	if err != nil {
		return fmt.Errorf("the answer is not the upstream's: %w", err)
	}
	if completed := received > len(j.body); completed != j.target.completes || received < len(j.body) {
		return fmt.Errorf("a request of %d bytes reached the upstream with %d", len(j.body), received)
	}
	got := digest{hash: sha256.New()}
	if _, err := j.read(resp.Body, make([]byte, bufferSize), time.Now(), &got, func() {}); err != nil {
		return err
	}
	return j.want.differs(&got)
}

// checkBlocked learns the body of the error that the gateway makes of a block.
func (j *job) checkBlocked(ctx context.Context) error {
	j.status = http.StatusBadRequest
	resp, err := j.send(ctx)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if !bytes.Contains(body, []byte("IMAGE_SAFETY")) {
		return fmt.Errorf("the error does not name the block: %s", body)
	}
	j.want = digest{}
	j.want.add(body)
	return nil
}

// call makes one call and reads its answer into buf. Its time counts from
// start. arrived is called at the first byte.
func (j *job) call(ctx context.Context, start time.Time, buf []byte, arrived func()) (timing, error) {
	resp, err := j.send(ctx)
	if err != nil {
		return timing{}, err
	}
	defer resp.Body.Close()
	var got digest
	t, err := j.read(resp.Body, buf, start, &got, arrived)
	if err != nil {
		return timing{}, err
	}
	t.total = time.Since(start)
	return t, j.want.differs(&got)
}

func (j *job) send(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, j.target.url+j.spec.path(), bytes.NewReader(j.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Goog-Api-Key", "bench")
	req.Header.Set(caseHeader, j.spec.name)
	if j.spec.zipped {
		req.Header.Set("Content-Encoding", "gzip")
	}
	if j.together > 0 {
		req.Header.Set(togetherHeader, strconv.Itoa(j.together))
	}
	resp, err := j.target.transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != j.status {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return nil, fmt.Errorf("status %d, want %d %q", resp.StatusCode, j.status, text)
	}
	return resp, nil
}

func (j *job) read(body io.Reader, buf []byte, start time.Time, got *digest, arrived func()) (timing, error) {
	if j.paced {
		return readEvents(body, start, got)
	}
	var t timing
	for {
		n, err := body.Read(buf)
		if n > 0 && got.size == 0 {
			t.first = time.Since(start)
			arrived()
		}
		got.add(buf[:n])
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return t, err
		}
	}
}

// readEvents takes each event's delay from the time of sending inside it.
func readEvents(body io.Reader, start time.Time, got *digest) (timing, error) {
	const mark = `"text":"`
	var t timing
	for r := bufio.NewReader(body); ; {
		line, err := r.ReadSlice('\n')
		now := time.Now()
		if got.size == 0 {
			t.first = now.Sub(start)
		}
		got.add(line)
		if _, stamp, ok := bytes.Cut(line, []byte(mark)); ok && len(stamp) > len(stampBlank) {
			sent, err := strconv.ParseInt(string(stamp[:len(stampBlank)]), 10, 64)
			if err != nil {
				return t, fmt.Errorf("event without its time: %w", err)
			}
			t.delays = append(t.delays, time.Duration(now.UnixNano()-sent))
		}
		if errors.Is(err, io.EOF) {
			return t, nil
		}
		if err != nil {
			return t, err
		}
	}
}

// block makes n calls over the case's connections and sums them up. The error
// is that of the first call that failed; the sample counts them all.
func (j *job) block(ctx context.Context, n int) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, blockTimeout)
	defer cancel()

	var (
		results = make([]timing, n)
		errs    = make([]error, n)
		wg      sync.WaitGroup
		arrived = j.gate(n)
	)
	before := j.target.usage(true)
	start := time.Now()
	turns := turns(n, j.every)
	for range j.spec.conns {
		wg.Go(func() {
			buf := make([]byte, bufferSize/4)
			for t := range turns {
				here := sync.OnceFunc(arrived)
				results[t.call], errs[t.call] = j.call(ctx, t.begin(), buf, here)
				here() // a call that failed keeps nobody waiting
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	s := summarise(results, errs, elapsed)
	s.addUsage(before, j.target.usage(false), j.target.idle, n)
	if j.together > 0 {
		s.addKept(n * len(j.body))
	}
	return s, firstOf(errs)
}

// gate returns what each of n calls does at its first byte: nothing, or, where
// all answers must be in flight at once, wait for the others.
func (j *job) gate(n int) func() {
	if !j.spec.inFlight {
		return func() {}
	}
	var all sync.WaitGroup
	all.Add(n)
	return func() {
		all.Done()
		all.Wait()
		time.Sleep(allInFlight)
	}
}

func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
