// Command digits is a real, tiny model server: softmax regression on 8x8 handwritten digits behind the V2 inference
// protocol. Its flags make the versions of the demo and of the tests: good, never ready, failing late, crashing, hungry.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if len(os.Args) < 2 {
		usage()
	}
	switch os.Args[1] {
	case "serve":
		if err := serve(stop, os.Args[2:]); err != nil {
			log.Fatal(err)
		}
	case "pause":
		// What a pod's sandbox runs: it only has to be there.
		<-stop.Done()
	default:
		usage()
	}
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: digits serve [flags] | digits pause")
	os.Exit(2)
}

func serve(stop context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ExitOnError)
	var (
		listen     = flags.String("listen", ":8000", "address and port")
		weights    = flags.String("weights", "/model.txt", "the model's file")
		version    = flags.String("version", "v1", "what it calls itself")
		loading    = flags.Duration("loading", time.Second, "how long loading takes: real ones fetch gigabytes")
		failAfter  = flags.Duration("fail-after", 0, "answer 503 this long after it was ready")
		failFor    = flags.Duration("fail-for", 0, "be well again after that, and fail again fail-after later")
		failLive   = flags.Bool("fail-live", false, "then fail liveness as well")
		crashAfter = flags.Duration("crash-after", 0, "exit with an error this long after the start")
		hoard      = flags.Int("hoard", 0, "allocate this many MiB a second, for ever")
	)
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := &server{version: *version, failAfter: *failAfter, failFor: *failFor, failLive: *failLive, now: time.Now}
	if *crashAfter > 0 {
		time.AfterFunc(*crashAfter, func() { log.Fatalf("digits %s: cannot go on", *version) })
	}
	if *hoard > 0 {
		go hoarder(*hoard)
	}
	go load(s, *weights, *loading)
	return listenAndServe(stop, *listen, s.routes())
}

// load makes the server ready after a while, or never: a server whose model is broken runs on and says so.
func load(s *server, weights string, loading time.Duration) {
	time.Sleep(loading)
	text, err := os.ReadFile(weights)
	if err == nil {
		var loaded *model
		if loaded, err = parseModel(string(text)); err == nil {
			s.use(loaded)
			log.Printf("digits %s is ready", s.version)
			return
		}
	}
	log.Printf("digits %s cannot load %s: %v", s.version, weights, err)
}

// hoarder allocates memory and touches it, until the kernel ends it.
func hoarder(mebibytes int) {
	var kept [][]byte
	for range time.Tick(time.Second / 10) {
		block := make([]byte, mebibytes<<20/10)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		kept = append(kept, block)
	}
}

// listenAndServe serves until it is told to stop, then answers what it has begun.
func listenAndServe(stop context.Context, address string, routes http.Handler) error {
	web := &http.Server{Addr: address, Handler: routes, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan error, 1)
	go func() {
		<-stop.Done()
		limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		done <- web.Shutdown(limit)
	}()
	if err := web.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-done
}
