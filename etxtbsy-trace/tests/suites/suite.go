// A test suite: each test writes a tool, and runs it a moment later. With `fixed`, a lock keeps other tests from forking
// while a tool is open for writing.
package main

import (
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const workers, tests = 6, 40

// The shell reads no further than `exit`.
var tool = append([]byte("#!/bin/sh\nsleep 0.003\nexit\n"), bytes.Repeat([]byte("#"), 500_000)...)

func write(path string, fixed bool) error {
	if fixed {
		// The lock that package syscall holds for writing while it forks.
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
	}
	return os.WriteFile(path, tool, 0o755)
}

func test(path string, fixed bool) error {
	defer os.Remove(path)
	if err := write(path, fixed); err != nil {
		return err
	}
	time.Sleep(time.Duration(1000+rand.Intn(3000)) * time.Microsecond)
	return exec.Command(path).Run()
}

func main() {
	directory, fixed := os.Args[1], len(os.Args) > 2 && os.Args[2] == "fixed"
	var failed int32
	var done sync.WaitGroup
	for worker := 0; worker < workers; worker++ {
		done.Add(1)
		go func(worker int) {
			defer done.Done()
			for number := 0; number < tests; number++ {
				path := filepath.Join(directory, fmt.Sprintf("tool-%d-%d", worker, number))
				if err := test(path, fixed); err != nil {
					fmt.Println(err)
					atomic.AddInt32(&failed, 1)
				}
			}
		}(worker)
	}
	done.Wait()
	if failed > 0 {
		os.Exit(1)
	}
}
