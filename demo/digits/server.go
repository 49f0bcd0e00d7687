package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// server speaks the V2 inference protocol (KServe's, Triton's) for one model.
type server struct {
	version string
	// model is set once its file is read; until then nothing is ready.
	model atomic.Pointer[model]
	// Zero means never. Measured from ready: a late failure is one that comes after Kubernetes has been satisfied.
	failAfter time.Duration
	// Zero means for good. Otherwise it fails for so long, is well for failAfter, and so on.
	failFor  time.Duration
	failLive bool
	ready    atomic.Pointer[time.Time]
	now      func() time.Time
}

func (s *server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"name": "digits", "version": s.version, "extensions": []string{}})
	})
	mux.HandleFunc("GET /v2/health/live", s.live)
	mux.HandleFunc("GET /v2/health/ready", s.readiness)
	mux.HandleFunc("GET /v2/models/digits", s.metadata)
	mux.HandleFunc("GET /v2/models/digits/ready", s.readiness)
	mux.HandleFunc("POST /v2/models/digits/infer", s.infer)
	return mux
}

// use makes the server ready with a model.
func (s *server) use(m *model) {
	now := s.now()
	s.ready.Store(&now)
	s.model.Store(m)
}

// failing tells whether the late failure has come.
func (s *server) failing() bool {
	ready := s.ready.Load()
	if s.failAfter == 0 || ready == nil {
		return false
	}
	since := s.now().Sub(*ready)
	if s.failFor > 0 {
		since %= s.failAfter + s.failFor
	}
	return since >= s.failAfter
}

func (s *server) live(w http.ResponseWriter, _ *http.Request) {
	if s.failLive && s.failing() {
		refuse(w, http.StatusServiceUnavailable, "the model has stopped answering")
		return
	}
	reply(w, http.StatusOK, map[string]any{"live": true})
}

func (s *server) readiness(w http.ResponseWriter, _ *http.Request) {
	if why := s.unready(); why != "" {
		refuse(w, http.StatusServiceUnavailable, why)
		return
	}
	reply(w, http.StatusOK, map[string]any{"ready": true, "name": "digits", "version": s.version})
}

func (s *server) unready() string {
	switch {
	case s.model.Load() == nil:
		return "the model is not loaded"
	case s.failing():
		return "the model has stopped answering"
	}
	return ""
}

func (s *server) metadata(w http.ResponseWriter, _ *http.Request) {
	type tensor struct {
		Name     string `json:"name"`
		Datatype string `json:"datatype"`
		Shape    []int  `json:"shape"`
	}
	reply(w, http.StatusOK, map[string]any{
		"name": "digits", "versions": []string{s.version}, "platform": "softmax_regression",
		"inputs":  []tensor{{"image", "FP32", []int{-1, pixels}}},
		"outputs": []tensor{{"digit", "INT64", []int{-1}}, {"probabilities", "FP32", []int{-1, classes}}},
	})
}

// inferRequest is what the V2 protocol calls an inference request; data is flat, row after row.
type inferRequest struct {
	ID     string `json:"id"`
	Inputs []struct {
		Name     string    `json:"name"`
		Datatype string    `json:"datatype"`
		Shape    []int     `json:"shape"`
		Data     []float64 `json:"data"`
	} `json:"inputs"`
}

type output struct {
	Name     string `json:"name"`
	Datatype string `json:"datatype"`
	Shape    []int  `json:"shape"`
	Data     any    `json:"data"`
}

func (s *server) infer(w http.ResponseWriter, r *http.Request) {
	if why := s.unready(); why != "" {
		refuse(w, http.StatusServiceUnavailable, why)
		return
	}
	var request inferRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&request); err != nil {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("not an inference request: %v", err))
		return
	}
	if len(request.Inputs) != 1 || request.Inputs[0].Name != "image" || request.Inputs[0].Datatype != "FP32" {
		refuse(w, http.StatusBadRequest, "one input is wanted: image, FP32")
		return
	}
	input := request.Inputs[0]
	if len(input.Shape) != 2 || input.Shape[1] != pixels || input.Shape[0] < 1 || len(input.Data) != input.Shape[0]*pixels {
		refuse(w, http.StatusBadRequest, fmt.Sprintf("shape %v with %d numbers, want [n, %d]", input.Shape, len(input.Data), pixels))
		return
	}
	s.answer(w, request.ID, input.Data)
}

func (s *server) answer(w http.ResponseWriter, id string, data []float64) {
	loaded := s.model.Load()
	count := len(data) / pixels
	digits := make([]int, 0, count)
	probabilities := make([]float64, 0, count*classes)
	for image := range count {
		likely := loaded.predict(data[image*pixels : (image+1)*pixels])
		digits = append(digits, likeliest(likely))
		probabilities = append(probabilities, likely[:]...)
	}
	answer := map[string]any{
		"model_name": "digits", "model_version": s.version,
		"outputs": []output{
			{"digit", "INT64", []int{count}, digits},
			{"probabilities", "FP32", []int{count, classes}, probabilities},
		},
	}
	if id != "" {
		answer["id"] = id
	}
	reply(w, http.StatusOK, answer)
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The status is out; a client that has gone away is its own affair.
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, why string) {
	reply(w, status, map[string]string{"error": why})
}
