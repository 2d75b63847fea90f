package main

import "runtime"

// thread is one OS thread that lives as long as the process. Namespaces joined on it stay with it,
// and so do the children started on it: the kernel sends a parent-death signal when the starting
// *thread* ends, which may come long before the process does.
type thread struct {
	work chan func()
}

// newThread runs setup on the new thread first, for instance to join a namespace.
func newThread(setup func() error) (thread, error) {
	t := thread{work: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread may be unlike all others
		err := setup()
		ready <- err
		if err != nil {
			return
		}
		for f := range t.work {
			f()
		}
	}()
	return t, <-ready
}

// run calls f on the thread and waits for it.
func (t thread) run(f func()) {
	done := make(chan struct{})
	t.work <- func() {
		defer close(done)
		f()
	}
	<-done
}
