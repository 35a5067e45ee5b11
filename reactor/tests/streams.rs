//! Streams and listeners: connecting, half-closing, socket files, addresses.

mod support;

use std::fs;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

use onceloop_reactor::{
    Address, Cx, Id, Input, Io, Listener, Peer, Pollable, Reactor, ReadOutcome, Source, Stream,
    WriteOutcome,
};
use support::{PATIENCE, Socket, World, settle, turn_until};

fn reactor() -> (Reactor<World>, World) {
    (Reactor::new().unwrap(), World::default())
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A connected pair of TCP sockets.
fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    there.set_read_timeout(Some(PATIENCE)).unwrap();
    (listener.accept().unwrap().0, there)
}

/// A path for a socket, free of what an earlier run left.
fn socket_path(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("onceloop-reactor-{}-{name}", std::process::id()));
    let _ = fs::remove_file(&path);
    path
}

/// Accepts whatever comes and keeps it.
struct Acceptor {
    listener: Listener,
    accepted: Vec<Stream>,
}

impl Source<World> for Acceptor {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Listener(&mut self.listener)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        while let Some(stream) = self.listener.accept().unwrap() {
            self.accepted.push(stream);
            io.dispatch();
        }
        assert!(!self.listener.is_readable());
    }

    fn dispatch(cx: &mut Cx<'_, World>, id: Id<Self>, _: &mut Input<'_>) {
        let acceptor = cx.registry.get_mut(id).unwrap();
        for stream in std::mem::take(&mut acceptor.accepted) {
            assert!(stream.is_writable() && !stream.is_readable());
            let echo = Socket::over(stream, "server").on_input(|cx, id, bytes| {
                let socket = cx.registry.get_mut(id).unwrap();
                socket.output.extend_from_slice(bytes);
                cx.registry.touch(id);
            });
            cx.registry.insert(echo).unwrap();
            cx.state.note("accepted");
        }
    }
}

/// Notes how its connecting ended.
struct Connector(Stream);

impl Source<World> for Connector {
    fn pollable(&mut self) -> Pollable<'_> {
        Pollable::Stream(&mut self.0)
    }

    fn handle_io(&mut self, io: &mut Io<'_>) {
        io.dispatch();
    }

    fn dispatch(cx: &mut Cx<'_, World>, id: Id<Self>, _: &mut Input<'_>) {
        match cx.registry.get_mut(id).unwrap().0.connect_result() {
            Ok(false) => {}
            Ok(true) => {
                let stream = cx.registry.remove(id).unwrap().0;
                let mut socket = Socket::over(stream, "client");
                socket.output.extend_from_slice(b"ping");
                let socket = cx.registry.insert(socket).unwrap();
                cx.registry.touch(socket);
                cx.state.note("connected");
            }
            Err(error) => {
                cx.state.note(format!("{:?}", error.kind()));
                cx.registry.remove(id);
            }
        }
    }
}

fn echo_over(listener: Listener, stream: impl FnOnce(Address) -> Stream) {
    let (mut reactor, mut world) = reactor();
    let address = listener.local_addr();
    let registry = reactor.registry();
    registry.insert(Acceptor { listener, accepted: Vec::new() }).unwrap();
    registry.insert(Connector(stream(address))).unwrap();
    turn_until(&mut reactor, &mut world, |world| world.count("client ping") == 1);
    for step in ["accepted", "connected", "server ping"] {
        assert_eq!(world.count(step), 1, "{step}");
    }
}

#[test]
fn tcp_connects_accepts_and_echoes() {
    let listener = Listener::tcp(loopback()).unwrap();
    echo_over(listener, |address| Stream::connect(&address.tcp().unwrap()).unwrap());
}

#[test]
fn unix_connects_accepts_and_echoes() {
    let path = socket_path("echo");
    let listener = Listener::unix(&path).unwrap();
    assert_eq!(listener.local_addr().to_string(), format!("unix:{}", path.display()));
    echo_over(listener, |_| Stream::connect_unix(&path).unwrap());
    assert!(!path.exists(), "the file is removed with the listener");
}

#[test]
fn an_existing_listener_is_taken_over() {
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    let listener = Listener::from_tcp(listener).unwrap();
    assert_eq!(listener.local_addr(), Address::Tcp(address));
    echo_over(listener, |_| Stream::connect(&address).unwrap());

    let path = socket_path("taken");
    let listener = UnixListener::bind(&path).unwrap();
    echo_over(Listener::from_unix(listener).unwrap(), |_| Stream::connect_unix(&path).unwrap());
    assert!(path.exists(), "the file is another's");
    fs::remove_file(path).unwrap();
}

#[test]
fn a_refused_connection_is_told() {
    let (mut reactor, mut world) = reactor();
    let address = TcpListener::bind(loopback()).unwrap().local_addr().unwrap();
    let result = Stream::connect(&address).and_then(|s| reactor.registry().insert(Connector(s)));
    // Loopback may refuse at once.
    if let Err(error) = result {
        return assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
    turn_until(&mut reactor, &mut world, |world| !world.log.is_empty());
    assert_eq!(world.log, ["ConnectionRefused"]);
}

#[test]
fn nodelay_is_on_everywhere() {
    let listener = TcpListener::bind(loopback()).unwrap();
    let address = listener.local_addr().unwrap();
    let is_on = |stream: &Stream| {
        use std::os::fd::AsFd;
        TcpStream::from(stream.as_fd().try_clone_to_owned().unwrap()).nodelay().unwrap()
    };
    let mut listener = Listener::from_tcp(listener).unwrap();
    assert!(is_on(&Stream::connect(&address).unwrap()), "connected");
    // Loopback has completed the handshake by now.
    assert!(is_on(&listener.accept().unwrap().unwrap()), "accepted");
    assert!(is_on(&Stream::from_tcp(tcp_pair().0).unwrap()), "taken over");
}

#[test]
fn a_half_close_that_came_with_the_data_is_seen_after_the_short_read() {
    let (here, mut there) = tcp_pair();
    let (mut reactor, mut world) = reactor();
    there.write_all(b"bye").unwrap();
    there.shutdown(Shutdown::Write).unwrap();
    let socket = Socket::over(Stream::from_tcp(here).unwrap(), "a").on_input(|cx, id, _| {
        let socket = cx.registry.get_mut(id).unwrap();
        if socket.is_eof {
            // The end of input is not the end of output.
            socket.output.extend_from_slice(b"answer");
            cx.registry.touch(id);
        }
    });
    reactor.registry().insert(socket).unwrap();
    turn_until(&mut reactor, &mut world, |world| {
        world.log.last().is_some_and(|entry| entry.ends_with("eof"))
    });
    settle(&mut reactor, &mut world);
    let mut answer = [0; 6];
    there.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
}

#[test]
fn a_half_close_that_came_later_is_seen() {
    let (here, mut there) = tcp_pair();
    let (mut reactor, mut world) = reactor();
    let socket = Socket::over(Stream::from_tcp(here).unwrap(), "a");
    let id = reactor.registry().insert(socket).unwrap();
    there.write_all(b"x").unwrap();
    turn_until(&mut reactor, &mut world, |world| world.count("a x") == 1);
    assert!(!reactor.registry().get(id).unwrap().stream.is_readable(), "a short read");
    there.shutdown(Shutdown::Write).unwrap();
    turn_until(&mut reactor, &mut world, |world| world.count("a  eof") == 1);
}

#[test]
fn a_write_is_taken_up_again_when_there_is_room() {
    const SIZE: usize = 4 << 20;
    let (mut reactor, mut world) = reactor();
    let (mut socket, mut there) = Socket::pair("a");
    socket.output = (0..SIZE).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let expected = socket.output.clone();
    let id = reactor.registry().insert(socket).unwrap();
    reactor.registry().touch(id);
    settle(&mut reactor, &mut world);
    let socket = reactor.registry().get(id).unwrap();
    assert!(!socket.stream.is_writable() && !socket.output.is_empty(), "the socket is full");

    let remote = reactor.registry().remote();
    let reader = std::thread::spawn(move || {
        let mut received = vec![0; SIZE];
        there.read_exact(&mut received).unwrap();
        remote.post(|cx| cx.state.note("received")).unwrap();
        received
    });
    turn_until(&mut reactor, &mut world, |world| world.count("received") == 1);
    assert!(reader.join().unwrap() == expected);
}

#[test]
fn reads_and_writes_tell_what_came_of_them() {
    let (here, mut there) = UnixStream::pair().unwrap();
    let mut stream = Stream::from_unix(here).unwrap();
    let mut space = [0; 8];
    assert_eq!(stream.read_into(&mut []).unwrap(), ReadOutcome::Bytes(0));
    assert_eq!(stream.read_into(&mut space).unwrap(), ReadOutcome::WouldBlock);
    there.write_all(b"0123456789").unwrap();
    assert_eq!(stream.read_into(&mut space).unwrap(), ReadOutcome::Bytes(8));
    assert!(stream.is_readable(), "a full read says nothing");
    assert_eq!(stream.read_into(&mut space).unwrap(), ReadOutcome::Bytes(2));
    assert!(!stream.is_readable(), "a short read has emptied the socket");

    let pieces = [IoSlice::new(b"ab"), IoSlice::new(b"cd")];
    assert_eq!(stream.write_vectored(&pieces).unwrap(), WriteOutcome::Bytes(4));
    assert_eq!(stream.write(b"").unwrap(), WriteOutcome::Bytes(0));
    assert!(stream.is_writable());
    assert!(stream.flush().unwrap() && !stream.wants_write() && !stream.has_buffered_plaintext());
    stream.shutdown_write().unwrap();
    let mut text = String::new();
    there.read_to_string(&mut text).unwrap();
    assert_eq!(text, "abcd");
    assert!(stream.write(b"x").is_err());

    drop(there);
    assert_eq!(stream.read_into(&mut space).unwrap(), ReadOutcome::Eof);
    let (here, there) = UnixStream::pair().unwrap();
    drop(there);
    let error = Stream::from_unix(here).unwrap().write(b"x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_write_not_taken_whole_has_filled_the_socket() {
    let (here, _there) = UnixStream::pair().unwrap();
    let mut stream = Stream::from_unix(here).unwrap();
    let bytes = vec![0; 8 << 20];
    let WriteOutcome::Bytes(n) = stream.write(&bytes).unwrap() else { panic!("it is empty") };
    assert!(n < bytes.len() && !stream.is_writable());
    assert_eq!(stream.write(&bytes).unwrap(), WriteOutcome::WouldBlock);
}

#[test]
fn peers_are_told() {
    let (here, there) = tcp_pair();
    let stream = Stream::from_tcp(here).unwrap();
    assert_eq!(stream.peer(), Peer::Tcp(there.local_addr().unwrap()));
    assert_eq!(stream.peer().to_string(), there.local_addr().unwrap().to_string());
    let (here, _there) = UnixStream::pair().unwrap();
    let peer = Stream::from_unix(here).unwrap().peer();
    if cfg!(all(feature = "os", target_os = "linux")) {
        let Peer::Unix { pid, uid } = peer else { panic!("{peer:?}") };
        assert_eq!(pid, Some(std::process::id()));
        assert!(uid.is_some());
    }
}

#[cfg(feature = "os")]
#[test]
fn keepalive_is_set_on_tcp_and_ignored_on_unix() {
    use rustix::net::sockopt;
    let mut stream = Stream::from_tcp(tcp_pair().0).unwrap();
    stream.set_keepalive(Some(Duration::from_secs(90))).unwrap();
    assert!(sockopt::socket_keepalive(&stream).unwrap());
    assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), Duration::from_secs(90));
    assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), Duration::from_secs(30));
    stream.set_keepalive(Some(Duration::ZERO)).unwrap();
    stream.set_keepalive(None).unwrap();
    assert!(!sockopt::socket_keepalive(&stream).unwrap());
    let mut unix = Stream::from_unix(UnixStream::pair().unwrap().0).unwrap();
    unix.set_keepalive(Some(Duration::from_secs(90))).unwrap();
}

#[cfg(not(feature = "os"))]
#[test]
fn keepalive_without_the_feature_says_so() {
    let mut stream = Stream::from_tcp(tcp_pair().0).unwrap();
    let error = stream.set_keepalive(Some(Duration::from_secs(90))).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::Unsupported);
}

#[test]
fn a_stale_socket_file_is_replaced() {
    let path = socket_path("stale");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "std leaves the file behind");
    let listener = Listener::unix(&path).unwrap();
    UnixStream::connect(&path).unwrap();
    drop(listener);
    assert!(!path.exists());
}

#[test]
fn a_live_socket_file_is_left_alone() {
    let path = socket_path("live");
    let live = UnixListener::bind(&path).unwrap();
    let error = Listener::unix(&path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("another process listens"), "{error}");
    UnixStream::connect(&path).unwrap();
    drop(live);
    fs::remove_file(path).unwrap();
}

#[test]
fn a_file_that_is_no_socket_is_left_alone() {
    let path = socket_path("file");
    fs::write(&path, "precious").unwrap();
    let error = Listener::unix(&path).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains("not a socket"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(path).unwrap();
}

#[test]
fn a_socket_file_that_another_has_replaced_is_not_removed() {
    let path = socket_path("replaced");
    let listener = Listener::unix(&path).unwrap();
    // Kept under another name, so that its inode is not given to the next file.
    let aside = socket_path("replaced-aside");
    fs::rename(&path, &aside).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists());
    UnixStream::connect(&path).unwrap();
    drop(other);
    fs::remove_file(path).unwrap();
    fs::remove_file(aside).unwrap();
}

#[cfg(feature = "os")]
#[test]
fn an_unspecified_ipv6_address_takes_ipv4_too() {
    use std::net::Ipv6Addr;

    let Ok(mut listener) = Listener::tcp((Ipv6Addr::UNSPECIFIED, 0).into()) else {
        // A machine without IPv6 has no dual stack to test.
        assert!(TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err());
        return;
    };
    let port = listener.local_addr().tcp().unwrap().port();
    assert_ne!(port, 0);
    for address in
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()]
    {
        let client = TcpStream::connect(address).unwrap();
        let Peer::Tcp(peer) = listener.accept().unwrap().unwrap().peer() else { panic!() };
        assert_eq!(peer.port(), client.local_addr().unwrap().port());
    }
}
