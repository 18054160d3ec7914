// As holder.c, but the opener itself holds the file.
package main

import (
	"os"
	"os/exec"
	"time"
)

//go:noinline
func writeProgram(path string) *os.File {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0755) // the open
	if err != nil {
		panic(err)
	}
	file.WriteString("#!/bin/true\n")
	return file
}

//go:noinline
func execute(path string) error {
	return exec.Command(path).Run() // the exec
}

func main() {
	file := writeProgram(os.Args[1])
	err := execute(os.Args[1])
	for len(os.Args) > 2 {
		time.Sleep(time.Hour)
	}
	file.Close()
	if err != nil {
		os.Exit(1)
	}
}
