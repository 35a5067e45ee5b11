// The peer net/rpc of Onceloop's bench: a server that echoes, and its load.
//
//	onceloop-peers-go serve
//	onceloop-peers-go load PORT IN_FLIGHT PAYLOAD
//
// The server prints the port that it listens on. The load is told what to do in JSON lines (one
// object with one key each) and answers each with one. Both end when their input does.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/rpc"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Payload is what a call sends and what it returns.
type Payload struct {
	Data []byte
	// When the call was made. Not exported, so not sent.
	from time.Time
}

// Bench is the service.
type Bench struct{}

// Echo returns what it is given.
func (Bench) Echo(in *Payload, out *Payload) error {
	out.Data = in.Data
	return nil
}

func main() {
	log.SetFlags(0)
	switch {
	case len(os.Args) == 2 && os.Args[1] == "serve":
		serve()
	case len(os.Args) == 5 && os.Args[1] == "load":
		l := load{port: number(2), inFlight: number(3), sent: Payload{Data: bytes.Repeat([]byte{0xa5}, number(4))}}
		l.obey()
	default:
		log.Fatal("usage: onceloop-peers-go serve | load PORT IN_FLIGHT PAYLOAD")
	}
}

func number(argument int) int {
	n, err := strconv.Atoi(os.Args[argument])
	if err != nil {
		log.Fatal(err)
	}
	return n
}

func serve() {
	if err := rpc.Register(Bench{}); err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	rpc.Accept(listener)
}

// A connection's client, and the latencies that its one goroutine has kept.
type connection struct {
	client    *rpc.Client
	latencies []int64
}

type load struct {
	port, inFlight int
	sent           Payload

	connections []*connection
	// The goroutines that call.
	calling    sync.WaitGroup
	isDraining atomic.Bool
	// Answers that come between these are kept: nanoseconds since began.
	began                   time.Time
	recordFrom, recordUntil atomic.Int64

	errorsLock sync.Mutex
	errors     []string
}

// An order has one field that is not nil.
type order struct {
	Open   *int    `json:"open"`
	Settle *[2]int `json:"settle"`
	Begin  *int    `json:"begin"`
	Record *int64  `json:"record"`
	Drain  *int64  `json:"drain"`
}

type done struct {
	Errors    []string `json:"errors,omitempty"`
	Latencies []int64  `json:"latencies_ns,omitempty"`
}

// obey does what each line of the input says.
func (l *load) obey() {
	l.began = time.Now()
	lines := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var o order
		if err := json.Unmarshal(lines.Bytes(), &o); err != nil {
			log.Fatal(err)
		}
		var d done
		switch {
		case o.Open != nil:
			l.open(*o.Open)
		case o.Settle != nil:
			l.settle(o.Settle[0], o.Settle[1])
		case o.Begin != nil:
			l.begin(*o.Begin)
		case o.Record != nil:
			now := int64(time.Since(l.began))
			l.recordFrom.Store(now)
			l.recordUntil.Store(now + *o.Record)
		case o.Drain != nil:
			d.Latencies = l.drain(time.Duration(*o.Drain))
		}
		l.errorsLock.Lock()
		d.Errors, l.errors = l.errors, nil
		l.errorsLock.Unlock()
		if err := out.Encode(d); err != nil {
			log.Fatal(err)
		}
	}
}

func (l *load) fail(err error) {
	l.errorsLock.Lock()
	l.errors = append(l.errors, err.Error())
	l.errorsLock.Unlock()
}

func (l *load) open(until int) {
	for i := len(l.connections); i < until; i++ {
		client, err := rpc.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", l.port))
		if err != nil {
			l.fail(err)
			client = nil
		}
		l.connections = append(l.connections, &connection{client: client})
	}
}

func (l *load) settle(from, until int) {
	answered := make(chan *rpc.Call, until-from)
	made := 0
	for _, c := range l.connections[from:until] {
		if c.client != nil {
			l.call(c, new(Payload), answered)
			made++
		}
	}
	for ; made > 0; made-- {
		l.check(<-answered)
	}
}

func (l *load) call(c *connection, reply *Payload, answered chan *rpc.Call) {
	reply.from = time.Now()
	c.client.Go("Bench.Echo", &l.sent, reply, answered)
}

// check returns whether a call was answered as it should be.
func (l *load) check(call *rpc.Call) bool {
	if call.Error != nil {
		l.fail(call.Error)
		return false
	}
	if !bytes.Equal(call.Reply.(*Payload).Data, l.sent.Data) {
		l.fail(fmt.Errorf("the answer is not what was sent"))
		return false
	}
	return true
}

func (l *load) begin(connections int) {
	for _, c := range l.connections[:connections] {
		if c.client != nil {
			l.calling.Add(1)
			go l.callOn(c)
		}
	}
}

// callOn keeps calls in flight on a connection until the load drains or one fails.
func (l *load) callOn(c *connection) {
	defer l.calling.Done()
	answered := make(chan *rpc.Call, l.inFlight)
	for i := 0; i < l.inFlight; i++ {
		l.call(c, new(Payload), answered)
	}
	for inFlight := l.inFlight; inFlight > 0; {
		call := <-answered
		reply := call.Reply.(*Payload)
		latency := time.Since(reply.from)
		if !l.check(call) {
			return
		}
		if now := int64(time.Since(l.began)); l.recordFrom.Load() <= now && now < l.recordUntil.Load() {
			c.latencies = append(c.latencies, int64(latency))
		}
		if l.isDraining.Load() {
			inFlight--
		} else {
			reply.Data = reply.Data[:0]
			l.call(c, reply, answered)
		}
	}
}

// drain returns every latency, once the last calls are answered.
func (l *load) drain(patience time.Duration) []int64 {
	l.isDraining.Store(true)
	ended := make(chan struct{})
	go func() {
		l.calling.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		l.fail(fmt.Errorf("the last calls were not answered"))
		return nil
	}
	var all []int64
	for _, c := range l.connections {
		all = append(all, c.latencies...)
	}
	return all
}
