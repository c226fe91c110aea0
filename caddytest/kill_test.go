// SPDX-License-Identifier: Apache-2.0

package caddytest

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// process is a Caddy that can be killed.
type process struct {
	*watched
	*exec.Cmd
}

// spawn starts the Caddy of cmd/caddy, with all that it stores in a directory.
func spawn(t *testing.T, program, dir, directives string) *process {
	t.Helper()
	address := freeAddress(t)
	p := &process{watched: &watched{&gateway{url: "http://" + address, address: address, dir: dir}, freeAddress(t)}}
	caddyfile := filepath.Join(dir, "Caddyfile")
	config := "{\n\tadmin " + p.admin + "\n\tpersist_config off\n}\nhttp://" + address + " {\n\tbind 127.0.0.1\n" + directives + "}\n"
	if err := os.WriteFile(caddyfile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	p.Cmd = exec.Command(program, "run", "--config", caddyfile)
	p.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "HOME="+dir)
	log, err := os.OpenFile(filepath.Join(dir, "process.log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	p.Stderr = log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	_ = log.Close()
	t.Cleanup(p.kill)
	for _, address := range []string{p.admin, p.address} {
		eventually(t, "the process answers", func() bool {
			res, err := http.Get("http://" + address + "/")
			if err == nil {
				_ = res.Body.Close()
			}
			return err == nil
		})
	}
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.Process.Kill()
	_ = p.Wait()
}

var savedCount = regexp.MustCompile(`"(?:attempts|judged|today)":(\d+)`)

// saved adds up what a file counts.
func (p *process) saved(t *testing.T, file string) (sum int) {
	t.Helper()
	for _, m := range savedCount.FindAllStringSubmatch(readFile(t, filepath.Join(p.dir, "caddy", "gemini", file)), -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// Seconds after a call all that was learned from it is saved, and survives
// kill -9.
func TestKill(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a Caddy and waits until it saves")
	}
	dir := t.TempDir()
	program := filepath.Join(dir, "caddy-under-test")
	build := exec.Command("go", "build", "-ldflags=-s -w", "-o", program, "./cmd/caddy")
	build.Dir = ".."
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	lightPath := "/v1beta/models/" + lightModel + ":generateContent"
	u := scripted(t, drawn)
	site := siteOf(t, u, limit("rpd 4"), guarding)
	p := spawn(t, program, dir, site)
	p.draws(t, 2)
	u.play(answers(200, jsonType, blockedJSON))
	blocked := strings.Replace(promptJSON, prompt, "something else", 1)
	p.post(t, unaryPath, blocked).fails(t, 400, "IMAGE_SAFETY")
	u.play(limited("3600s"))
	p.post(t, lightPath, promptJSON)
	files := map[string]int{"usage.json": 4 + 3, "block_rates.json": 3, "limits.json": 4}
	eventually(t, "everything is saved", func() bool {
		for file, want := range files {
			if p.saved(t, file) != want {
				return false
			}
		}
		return true
	})
	before := string(p.tell(t, http.MethodGet, "/gemini/status").body)
	p.kill()

	p = spawn(t, program, dir, site)
	rows := []string{
		"first " + lightModel + ": 1 calls, 0+0+0 tokens, 0 USD",
		"first " + imageModel + ": 3 calls, 2 images, 1 blocked map[IMAGE_SAFETY:1] (0.33) for 0.002676, 50+2580+220 tokens, 0.27562 USD, 0.13781 each",
	}
	p.books(t, "studio", rows...)
	u.play(drawn)
	p.post(t, unaryPath, blocked).repeats(t, "blocked", "output", "IMAGE_SAFETY")
	if s := p.post(t, lightPath, promptJSON); s.StatusCode != 429 {
		t.Errorf("the cooldown is forgotten: status %d", s.StatusCode)
	}
	u.untouched(t)
	p.draws(t, 1)
	(wall{quota: quotaRPD, value: "4", class: "exhausted"}).refuses(t, p.post(t, unaryPath, promptJSON))
	u.only(t)
	if row := p.row(t, "rpd"); row.Used != 4 {
		t.Errorf("the status page says %+v; before it was %s", row, before)
	}
	log := readFile(t, filepath.Join(dir, "process.log"))
	for _, word := range []string{"panic", "a file in storage", keyMark, prompt} {
		if strings.Contains(log, word) {
			t.Errorf("the log has %q: %s", word, log)
		}
	}
}

// Files that nobody can read are set aside, told of, and do no harm.
func TestForeignFiles(t *testing.T) {
	day := time.Now().Format(time.DateOnly)
	const instance = `"instance":"0123456789abcdef"`
	row := func(fields string) string {
		return `{"version":1,"entries":[{` + instance + `,"day":"` + day + `","project":"studio","upstream":"first","model":"m",` + fields + `}]}`
	}
	rate := func(counts string) string {
		return `{"version":1,"entries":[{"account":"studio","project":"studio","day":"` + day + `","counts":{"0123456789abcdef":` + counts + `}}]}`
	}
	for name, files := range map[string][2]string{
		"garbage":       {"\x00\xff{[", "null and void"},
		"empty":         {"", ""},
		"cut off":       {row(`"calls":1,"attempts":1`)[:60], rate(`{"judged":1,"blocked":1}`)[:60]},
		"a version":     {`{"version":2,"entries":[]}`, `{"version":99,"entries":[{"account":7}]}`},
		"other types":   {row(`"calls":"1","attempts":[]`), rate(`{"judged":"many"}`)},
		"huge":          {row(`"calls":1,"attempts":9223372036854775807`), rate(`{"judged":9223372036854775807,"blocked":9223372036854775807}`)},
		"beyond 64 bit": {row(`"calls":1e40,"attempts":1e40`), rate(`{"judged":1e40,"blocked":1}`)},
		"money":         {row(`"calls":1,"attempts":1,"cost_usd":1e300`), rate(`{"judged":0,"blocked":0}`)},
		"negative":      {row(`"calls":-1,"attempts":1`), rate(`{"judged":5,"blocked":-5}`)},
		"contradiction": {row(`"calls":2,"attempts":1`), rate(`{"judged":1,"blocked":2}`)},
		"another paper": {`[{"usage":1}]`, `{"entries":{"version":1}}`},
	} {
		t.Run(name, func(t *testing.T) {
			u := scripted(t, drawn)
			g := oversee(t, "respond 204\n")
			folder := filepath.Join(g.dir, "gemini")
			if err := os.MkdirAll(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			for i, file := range []string{"usage.json", "block_rates.json"} {
				if err := os.WriteFile(filepath.Join(folder, file), []byte(files[i]), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			site := siteOf(t, u, "pause_on_block_rate", limit("rpd 100"))
			g.load(t, site)
			g.draws(t, 1)
			const want = "first " + imageModel + ": 1 calls, 1 images, 16+1290+0 tokens, 0.136472 USD, 0.136472 each"
			g.books(t, "", want)
			g.restart(t, site)
			g.books(t, "", want)
			for i, file := range []string{"usage.json", "block_rates.json"} {
				if got := readFile(t, filepath.Join(folder, file+".corrupt")); got != files[i] {
					t.Errorf("%s was set aside as %q", file, got)
				}
				var sound struct{ Version int }
				if err := json.Unmarshal([]byte(readFile(t, filepath.Join(folder, file))), &sound); err != nil || sound.Version != 1 {
					t.Errorf("%s: version %d, %v", file, sound.Version, err)
				}
				aside := 0
				for line := range strings.Lines(g.log(t)) {
					if strings.Contains(line, `"level":"warn"`) && strings.Contains(line, "a file in storage has been moved aside") && strings.Contains(line, "gemini/"+file) {
						aside++
					}
				}
				if aside != 1 {
					t.Errorf("%d warnings tell that %s was set aside", aside, file)
				}
			}
		})
	}
}
