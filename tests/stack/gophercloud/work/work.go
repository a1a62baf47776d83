// Package work is what both programs do: requests to the object store, in parallel and for as long as wanted.
package work

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"time"
)

// Session is a sign-in that is kept.
type Session struct {
	Project string
	// Round makes some requests and says how many containers there are.
	Round func() (int, error)
}

type report struct {
	Project    string `json:"project"`
	Containers int64  `json:"containers"`
	Rounds     int64  `json:"rounds"`
}

// Main runs a program: it ends with 1 at the first request that fails.
func Main(signIn func() (Session, error)) {
	every := flag.Duration("every", 5*time.Second, "how long a worker rests between two rounds")
	length := flag.Duration("for", 0, "how long to go on; 0 is one round")
	workers := flag.Int("workers", 1, "how many share the sign-in")
	flag.Parse()
	session, err := signIn()
	if err == nil {
		err = run(session, *every, *length, *workers)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(session Session, every, length time.Duration, workers int) error {
	var rounds, containers atomic.Int64
	began := time.Now()
	ends := make(chan error, workers)
	for range workers {
		go func() {
			for {
				count, err := session.Round()
				if err != nil {
					ends <- fmt.Errorf("after %s: %w", time.Since(began).Round(time.Second), err)
					return
				}
				rounds.Add(1)
				containers.Store(int64(count))
				if time.Since(began)+every > length {
					ends <- nil
					return
				}
				time.Sleep(every)
			}
		}()
	}
	for range workers {
		if err := <-ends; err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(report{session.Project, containers.Load(), rounds.Load()})
}

// TLS trusts the authority in a file; without a file, those of the machine.
func TLS(path string) (*tls.Config, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: no certificate", path)
	}
	return &tls.Config{RootCAs: pool}, nil
}
