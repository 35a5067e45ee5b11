//! A relay that breaks connections: it passes a number of bytes on and cuts, anywhere in a frame.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a connection to the relay lasts, in bytes of both directions together.
pub(crate) type Budget = fn(connection: u64) -> u64;

pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    pub(crate) cuts: Arc<AtomicU64>,
    is_stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    pub(crate) fn new(target: String, budget: Budget) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let cuts = Arc::new(AtomicU64::new(0));
        let is_stopping = Arc::new(AtomicBool::new(false));
        let (counted, stopping) = (Arc::clone(&cuts), Arc::clone(&is_stopping));
        let thread = std::thread::spawn(move || {
            for (connection, near) in (0..).zip(listener.incoming()) {
                if stopping.load(Ordering::Relaxed) {
                    return;
                }
                let near = near.expect("a connection");
                let far = TcpStream::connect(&target).expect("the server is there");
                if pass_on(&near, &far, budget(connection), &stopping) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Relay { address, cuts, is_stopping, thread: Some(thread) }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        // Ends the accept; a connection that is open ends by its read's timeout.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the relay does not panic");
        }
    }
}

/// Passes bytes on, one direction after the other, until `budget` is used up or one side closes;
/// returns whether the relay itself cut.
fn pass_on(near: &TcpStream, far: &TcpStream, mut budget: u64, stopping: &AtomicBool) -> bool {
    for stream in [near, far] {
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a socket");
    }
    let mut buffer = [0; 4096];
    let mut has_cut = false;
    'open: while !stopping.load(Ordering::Relaxed) {
        for (mut from, mut to) in [(near, far), (far, near)] {
            let wanted = buffer.len().min(usize::try_from(budget).unwrap_or(usize::MAX));
            match from.read(&mut buffer[..wanted]) {
                Ok(0) => break 'open,
                Ok(bytes) => {
                    budget -= bytes as u64;
                    if to.write_all(&buffer[..bytes]).is_err() {
                        break 'open;
                    }
                }
                Err(_) => {} // nothing came
            }
            if budget == 0 {
                has_cut = true;
                break 'open;
            }
        }
    }
    let _ = near.shutdown(Shutdown::Both);
    let _ = far.shutdown(Shutdown::Both);
    has_cut
}

/// Which way a black hole swallows what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Swallows {
    Answers,
    Requests,
}

/// A relay whose first connection passes the handshake on and then swallows one direction, without
/// ever closing; later ones pass everything. Its threads end with the sockets.
pub(crate) fn black_hole(target: String, swallows: Swallows) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for (connection, near) in (0..).zip(listener.incoming()) {
            let near = near.expect("a connection");
            let Ok(far) = TcpStream::connect(&target) else { return };
            let hole = |direction| connection == 0 && direction == swallows;
            let (requests, answers) = (hole(Swallows::Requests), hole(Swallows::Answers));
            for (from, to, is_hole) in [(&near, &far, requests), (&far, &near, answers)] {
                let from = from.try_clone().expect("a socket");
                let to = to.try_clone().expect("a socket");
                std::thread::spawn(move || pour(from, to, is_hole));
            }
        }
    });
    address
}

/// Passes bytes on; into a hole, only the first that come: those of the handshake.
fn pour(mut from: TcpStream, mut to: TcpStream, is_hole: bool) {
    let mut buffer = [0; 4096];
    for piece in 0.. {
        let bytes = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(bytes) => bytes,
        };
        if (!is_hole || piece == 0) && to.write_all(&buffer[..bytes]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
