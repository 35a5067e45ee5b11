//! Counts the words of a file on a server, by callback-style calls over a real socket.
//!
//! The file goes in pieces, cut between words, many on their way at once; the counts come back in
//! pages, so that neither a large file nor a large answer needs a large message. Adding a piece
//! twice would count its words twice: each is called exactly once, whatever becomes of the
//! connection.
//!
//! Run it: `cargo run --release --example word_count -- FILE`

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::io::{self, BufWriter, Write};
use std::ops::Bound::{Excluded, Unbounded};

use onceloop::{Builder, CallError, Client, Cx, Reactor};
use serde::{Deserialize, Serialize};

/// Bytes of one piece, if the words let it be cut there.
const PIECE_BYTES: usize = 64 * 1024;
/// Words of one page.
const PAGE_WORDS: usize = 1_000;

onceloop::service! {
    /// Counts words, piece by piece.
    pub mod word_count {
        /// Begins a count and returns its number.
        fn begin() -> u64;
        /// Adds the words of a piece and returns how many there are so far.
        fn add(count: u64, text: &str) -> u64;
        /// Returns the words after `after`, in order, with how often each occurs.
        #[idempotent]
        fn page(count: u64, after: &str) -> Page;
        /// Ends a count.
        fn end(count: u64);
    }
}

/// A part of the answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Page {
    words: Vec<(String, u64)>,
    is_last: bool,
}

/// What the server and the client keep: here both are on one loop.
#[derive(Default)]
struct App {
    counts: HashMap<u64, BTreeMap<String, u64>>,
    counts_begun: u64,

    client: Option<Client<App>>,
    text: String,
    pieces_left: usize,
    result: Vec<(String, u64)>,
    failure: Option<Box<dyn Error>>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::args_os().nth(1).ok_or("usage: word_count FILE")?;
    let bytes = std::fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    let text = String::from_utf8_lossy(&bytes).into_owned();

    let mut reactor = Reactor::new()?;
    let server = server().listen(reactor.registry(), "127.0.0.1:0")?;
    let address = server.local_addresses(reactor.registry()).remove(0);
    let client = Client::connect(reactor.registry(), address)?;
    client.call(reactor.registry(), word_count::begin, (), |reply, cx| match reply {
        Ok(count) => send_pieces(count, cx),
        Err(error) => fail(error, cx),
    });

    let mut app = App { client: Some(client), text, ..App::default() };
    reactor.run(&mut app)?;
    if let Some(failure) = app.failure {
        return Err(failure);
    }
    match print(&app.result) {
        // Whoever reads the output has seen enough: `word_count FILE | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

fn server() -> Builder<App> {
    let unknown = "no such count: begin one";
    Builder::<App>::new()
        .service(word_count::METHODS)
        .method(word_count::begin, |(), cx| {
            cx.state.counts_begun += 1;
            cx.state.counts.insert(cx.state.counts_begun, BTreeMap::new());
            Ok(cx.state.counts_begun)
        })
        .method(word_count::add, move |(count, text), cx| {
            let counts = cx.state.counts.get_mut(&count).ok_or(unknown)?;
            for word in text.split_whitespace() {
                match counts.get_mut(word) {
                    Some(n) => *n += 1,
                    None => drop(counts.insert(word.to_owned(), 1)),
                }
            }
            Ok(counts.values().sum())
        })
        .method(word_count::page, move |(count, after), cx| {
            let counts = cx.state.counts.get(&count).ok_or(unknown)?;
            let mut rest = counts.range::<str, _>((Excluded(after), Unbounded));
            let words = rest.by_ref().take(PAGE_WORDS).map(|(word, n)| (word.clone(), *n));
            Ok(Page { words: words.collect(), is_last: rest.next().is_none() })
        })
        .method(word_count::end, |(count,), cx| {
            cx.state.counts.remove(&count);
            Ok(())
        })
}

/// Sends every piece at once: what the server's window does not take yet waits in the client.
fn send_pieces(count: u64, cx: &mut Cx<'_, App>) {
    let Some(client) = cx.state.client else { return };
    let text = std::mem::take(&mut cx.state.text);
    for piece in pieces(&text) {
        cx.state.pieces_left += 1;
        client.call(cx.registry, word_count::add, (count, piece), move |reply, cx| match reply {
            Ok(_) => {
                cx.state.pieces_left -= 1;
                if cx.state.pieces_left == 0 {
                    fetch_page(count, cx);
                }
            }
            Err(error) => fail(error, cx),
        });
    }
}

fn fetch_page(count: u64, cx: &mut Cx<'_, App>) {
    let Some(client) = cx.state.client else { return };
    // No word is empty: the empty one comes before all.
    let after = cx.state.result.last().map_or("", |(word, _)| word);
    client.call(cx.registry, word_count::page, (count, after), move |reply, cx| match reply {
        Ok(page) => {
            cx.state.result.extend(page.words);
            if page.is_last { end(count, cx) } else { fetch_page(count, cx) }
        }
        Err(error) => fail(error, cx),
    });
}

fn end(count: u64, cx: &mut Cx<'_, App>) {
    let Some(client) = cx.state.client else { return };
    client.call(cx.registry, word_count::end, (count,), |reply, cx| match reply {
        Ok(()) => cx.registry.stop(),
        Err(error) => fail(error, cx),
    });
}

fn fail<E: Error + 'static>(error: CallError<E>, cx: &mut Cx<'_, App>) {
    cx.state.failure.get_or_insert(Box::new(error));
    cx.registry.stop();
}

/// Cuts a text between words into pieces of about [`PIECE_BYTES`]; at least one.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > PIECE_BYTES {
        let near = (0..=PIECE_BYTES).rev().find(|&at| rest.is_char_boundary(at)).unwrap_or(0);
        // A word longer than a piece makes the piece longer.
        let before = rest[..near].rfind(char::is_whitespace).filter(|&at| at > 0);
        let after = || rest[near..].find(char::is_whitespace).map(|at| near + at);
        let Some(at) = before.or_else(after) else { break };
        let (piece, tail) = rest.split_at(at);
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    pieces
}

/// Prints the words, the most frequent first.
fn print(result: &[(String, u64)]) -> io::Result<()> {
    let mut words: Vec<_> = result.iter().collect();
    words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let mut out = BufWriter::new(io::stdout().lock());
    for (word, n) in words {
        writeln!(out, "{n:>8} {word}")?;
    }
    out.flush()
}
