package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

func TestModelsKnowTheSamples(t *testing.T) {
	for _, version := range []string{"v1", "v3"} {
		m := trained(t, version)
		for _, sample := range samples(t) {
			if got := likeliest(m.predict(sample.image)); got != sample.digit {
				t.Errorf("%s says %d, the sample is a %d", version, got, sample.digit)
			}
		}
	}
}

func TestBrokenModelsAreNamed(t *testing.T) {
	whole := read(t, "models/v3.txt")
	for name, row := range map[string]struct{ text, want string }{
		"cut short":    {whole[:len(whole)/2], "of 650 weights"},
		"empty":        {"", "0 of 650 weights"},
		"not a number": {strings.Replace(whole, "-", "x", 1), "is not a number"},
		"not a weight": {"NaN" + whole[strings.Index(whole, " "):], "is not a number"},
		"one too many": {whole + " 1.0", "651 of 650 weights"},
	} {
		if _, err := parseModel(row.text); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", name, err, row.want)
		}
	}
}

func TestHealth(t *testing.T) {
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, row := range map[string]struct {
		server      *server
		loaded      bool
		passed      time.Duration
		live, ready int
	}{
		"loading":              {&server{}, false, 0, 200, 503},
		"ready":                {&server{}, true, time.Hour, 200, 200},
		"before it fails":      {&server{failAfter: 5 * time.Second}, true, 4 * time.Second, 200, 200},
		"failed late":          {&server{failAfter: 5 * time.Second}, true, 5 * time.Second, 200, 503},
		"failed, liveness too": {&server{failAfter: 5 * time.Second, failLive: true}, true, 5 * time.Second, 503, 503},
		"well again":           {&server{failAfter: 5 * time.Second, failFor: 2 * time.Second}, true, 7 * time.Second, 200, 200},
		"fails again":          {&server{failAfter: 5 * time.Second, failFor: 2 * time.Second}, true, 12 * time.Second, 200, 503},
		"never loaded, live":   {&server{failAfter: 5 * time.Second, failLive: true}, false, time.Hour, 200, 503},
	} {
		now := start
		row.server.now = func() time.Time { return now }
		if row.loaded {
			row.server.use(trained(t, "v1"))
		}
		now = start.Add(row.passed)
		for path, want := range map[string]int{
			"/v2/health/live": row.live, "/v2/health/ready": row.ready, "/v2/models/digits/ready": row.ready,
		} {
			if got := ask(row.server, http.MethodGet, path, "").Code; got != want {
				t.Errorf("%s: %s answers %d, want %d", name, path, got, want)
			}
		}
	}
}

func TestInfer(t *testing.T) {
	s := &server{version: "v1", now: time.Now}
	seven := samples(t)[7]
	body := inferBody(seven.image, 1)
	if got := ask(s, http.MethodPost, "/v2/models/digits/infer", body).Code; got != http.StatusServiceUnavailable {
		t.Errorf("before the model is loaded: %d", got)
	}
	s.use(trained(t, "v1"))

	answer := ask(s, http.MethodPost, "/v2/models/digits/infer", body)
	var got struct {
		ID      string `json:"id"`
		Version string `json:"model_version"`
		Outputs []struct {
			Name string    `json:"name"`
			Data []float64 `json:"data"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil || answer.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", answer.Code, answer.Body, err)
	}
	if got.ID != "one" || got.Version != "v1" || got.Outputs[0].Name != "digit" || got.Outputs[0].Data[0] != 7 {
		t.Errorf("unexpected answer: %s", answer.Body)
	}

	for name, bad := range map[string]string{
		"no JSON":     "{",
		"no input":    `{"inputs": []}`,
		"wrong type":  strings.Replace(body, "FP32", "BYTES", 1),
		"wrong name":  strings.Replace(body, `"image"`, `"picture"`, 1),
		"wrong shape": inferBody(seven.image, 2),
		"short":       inferBody(seven.image[:63], 1),
	} {
		if got := ask(s, http.MethodPost, "/v2/models/digits/infer", bad).Code; got != http.StatusBadRequest {
			t.Errorf("%s: %d, want 400", name, got)
		}
	}
}

func TestMetadata(t *testing.T) {
	s := &server{version: "v1", now: time.Now}
	for path, want := range map[string]string{"/v2": `"version":"v1"`, "/v2/models/digits": `"versions":["v1"]`} {
		if got := ask(s, http.MethodGet, path, ""); got.Code != 200 || !strings.Contains(got.Body.String(), want) {
			t.Errorf("%s: %d %s", path, got.Code, got.Body)
		}
	}
}

type sample struct {
	digit int
	image []float64
}

func samples(t *testing.T) []sample {
	var all []sample
	for line := range strings.Lines(read(t, "samples.txt")) {
		one := sample{image: make([]float64, pixels)}
		fields := strings.NewReader(line)
		if _, err := fmt.Fscan(fields, &one.digit); err != nil {
			t.Fatal(err)
		}
		for i := range one.image {
			if _, err := fmt.Fscan(fields, &one.image[i]); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, one)
	}
	if len(all) != classes {
		t.Fatalf("%d samples, want one of each digit", len(all))
	}
	return all
}

func trained(t *testing.T, version string) *model {
	m, err := parseModel(read(t, "models/"+version+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func read(t *testing.T, path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func inferBody(image []float64, count int) string {
	body, _ := json.Marshal(map[string]any{
		"id":     "one",
		"inputs": []any{map[string]any{"name": "image", "datatype": "FP32", "shape": []int{count, pixels}, "data": image}},
	})
	return string(body)
}

func ask(s *server, method, path, body string) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	s.routes().ServeHTTP(answer, httptest.NewRequest(method, path, strings.NewReader(body)))
	return answer
}
