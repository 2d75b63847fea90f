package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// progressFD is the file descriptor on which a starting cluster tells `up` how far it is. Its end
// without a word of success is a failure, so a crash of any of the processes is one too.
const progressFD = 3

// progressLine is one message: a step that is done, the end, or what went wrong.
type progressLine struct {
	Step    string  `json:"step,omitempty"`
	Seconds float64 `json:"seconds,omitempty"`
	Ready   bool    `json:"ready,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// progressWriter is the cluster's side.
type progressWriter struct {
	out     *os.File
	started time.Time
}

// inheritedProgress keeps the descriptor from the programs that this process starts.
func inheritedProgress() progressWriter {
	unix.CloseOnExec(progressFD)
	return progressWriter{out: os.NewFile(progressFD, "progress"), started: time.Now()}
}

func (p progressWriter) step(text string) {
	p.write(progressLine{Step: text, Seconds: time.Since(p.started).Seconds()})
}

func (p progressWriter) end(err error) {
	if err != nil {
		p.write(progressLine{Error: err.Error()})
	} else {
		p.write(progressLine{Ready: true})
	}
	_ = p.out.Close() // nothing is buffered
}

// write does not fail: when `up` is gone, nobody wants to know.
func (p progressWriter) write(line progressLine) { _ = json.NewEncoder(p.out).Encode(line) }

// followProgress is the side of `up`: it shows the steps and returns when the cluster is ready.
func followProgress(in io.Reader, show io.Writer) error {
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var line progressLine
		if err := json.Unmarshal(scanner.Bytes(), &line); err != nil {
			return fmt.Errorf("read the cluster's progress %q: %w", scanner.Text(), err)
		}
		switch {
		case line.Error != "":
			return errors.New(line.Error)
		case line.Ready:
			return nil
		default:
			fmt.Fprintf(show, "%5.1f s  %s\n", line.Seconds, line.Step)
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("read the cluster's progress: %w", err)
	}
	return errors.New("the cluster ended while it started")
}
