package pool

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Operations on a closed channel fail. They affect neither descriptor 0, the standard input of this process, nor a file that was opened
// later and got the number of the channel's descriptor.
func TestAClosedChannelHasNoDescriptor(t *testing.T) {
	t.Parallel()
	bare, theirs, err := newChannel()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(theirs)
	polled, its, err := newChannel()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(its)
	polled.pollable()
	never := newWorker(nil, StateBooting).channel
	for name, c := range map[string]*channel{"bare": &bare, "polled": &polled, "never opened": &never} {
		c.close()
		if name != "polled" && c.pollable() != nil {
			t.Errorf("%s: it has a file", name)
		}
		if err := c.write("x"); err == nil {
			t.Errorf("%s: it takes what is written", name)
		}
		if _, _, err := c.read(make([]byte, 1), time.Now()); err == nil {
			t.Errorf("%s: it is read from", name)
		}
		if err := c.closeWrite(); err == nil {
			t.Errorf("%s: it can be shut down", name)
		}
		c.close() // a second close does nothing
	}
}

// In a process whose standard input is closed, a channel may get descriptor 0, and closes it like any other.
func TestAChannelMayHaveDescriptor0(t *testing.T) {
	if os.Getenv("SANDBOX_TEST_DESCRIPTOR_0") == "" {
		t.Parallel()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "SANDBOX_TEST_DESCRIPTOR_0=1") // in another process, whose standard input it closes
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	for name, use := range map[string]func(c *channel){
		"bare":   func(*channel) {},
		"polled": func(c *channel) { c.pollable() },
	} {
		if err := unix.Close(0); err != nil && err != unix.EBADF {
			t.Fatal(err)
		}
		c, theirs, err := newChannel()
		if err != nil {
			t.Fatal(err)
		}
		if c.fd != 0 {
			t.Fatalf("%s: the channel has descriptor %d", name, c.fd)
		}
		use(&c)
		if err := c.write("x"); err != nil {
			t.Errorf("%s: write: %v", name, err)
		}
		if n, err := unix.Read(theirs, make([]byte, 2)); n != 1 || err != nil {
			t.Errorf("%s: the other side reads %d bytes, %v", name, n, err)
		}
		if err := c.closeWrite(); err != nil {
			t.Errorf("%s: closeWrite: %v", name, err)
		}
		c.close()
		if n, err := unix.Read(theirs, make([]byte, 2)); n != 0 || err != nil {
			t.Errorf("%s: the other side reads %d bytes, %v, after the end", name, n, err)
		}
		if _, err := unix.FcntlInt(0, unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("%s: descriptor 0 is left open (%v)", name, err)
		}
		_ = unix.Close(theirs)
	}
}
